import numpy as np
import pytest
from sklearn import metrics

from training.data.labelled import GroundTruth
from training.evaluation.metrics import (
    Criteria,
    MetricCalculator,
    ModelOutput,
    at_best_f1,
    evaluate,
    measure,
    stratified_resamples,
)

CRITERIA = Criteria(1.0, (0.01, 0.05), (20, 50), 10)


def some_rows(seed=0, rows=2000, digits=2):
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < 0.05).astype(np.int8)
    score = np.clip(rng.beta(1, 12, rows) + label * rng.random(rows) * 0.5, 0, 1).round(digits)
    known = GroundTruth(label, rng.uniform(0.5, 3.0, rows), rng.lognormal(3, 1, rows))
    return ModelOutput(score, score >= 0.25), known


@pytest.mark.parametrize("digits", [1, 2, 9])  # with many, some and no ties
def test_agrees_with_scikit_learn(digits):
    output, truth = some_rows(digits=digits)
    found = measure(output, truth, CRITERIA)
    weights = {"sample_weight": truth.weight}
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth.label, output.score, **weights))
    assert found["average_precision"] == pytest.approx(
        metrics.average_precision_score(truth.label, output.score, **weights)
    )
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(truth.label, output.score, **weights))
    for name, reference in (
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
        ("f1", metrics.f1_score),
    ):
        assert found[name] == pytest.approx(reference(truth.label, output.alarm, **weights))


def test_a_weight_is_worth_as_many_rows():
    output, truth = some_rows()
    times = np.random.default_rng(1).integers(1, 4, len(truth.label))
    repeated = GroundTruth(
        *(np.repeat(part, times) for part in (truth.label, np.ones(len(times)), truth.amount))
    )
    weighted = GroundTruth(truth.label, times.astype(float), truth.amount)
    one = measure(
        ModelOutput(np.repeat(output.score, times), np.repeat(output.alarm, times)), repeated, CRITERIA
    )
    other = measure(output, weighted, CRITERIA)
    for name in set(one) - {"calibration_error"}:  # its bins follow the rows
        assert one[name] == pytest.approx(other[name]), name


def test_resampled_weights_give_what_scikit_learn_gives():
    output, truth = some_rows(rows=5000, digits=4)
    weights = next(stratified_resamples(truth, 3, seed=1))
    found = MetricCalculator(output, truth, CRITERIA)(weights)
    for i, weight in enumerate(weights):
        assert found["average_precision"][i] == pytest.approx(
            metrics.average_precision_score(truth.label, output.score, sample_weight=weight)
        )
        assert found["auc"][i] == pytest.approx(
            metrics.roc_auc_score(truth.label, output.score, sample_weight=weight)
        )
        top = np.argsort(-output.score, kind="stable")
        passed = weight[top].cumsum() <= 0.05 * weight.sum()
        caught = (weight * truth.label)[top][passed].sum() / (weight * truth.label).sum()
        assert found["recall_at_alarm_rate_0.05"][i] == pytest.approx(caught, abs=0.02)


def test_resamples_keep_each_class_and_repeat_with_the_seed():
    _, truth = some_rows()
    truth = GroundTruth(truth.label, np.ones(len(truth.label)), truth.amount)
    first, second = (np.concatenate(list(stratified_resamples(truth, 20, seed))) for seed in (3, 3))
    assert (first == second).all()
    assert first.shape == (20, len(truth.label))
    assert (first @ truth.label == truth.label.sum()).all()
    assert (first.sum(1) == len(truth.label)).all()


def test_costs_are_amounts_missed_and_reviews():
    truth = GroundTruth(
        np.array([1, 1, 0, 0], np.int8), np.array([1.0, 1.0, 10.0, 10.0]), np.array([100.0, 50.0, 5, 5])
    )
    output = ModelOutput(np.array([0.9, 0.1, 0.8, 0.0]), np.array([True, False, True, False]))
    found = measure(output, truth, Criteria(review_cost=2.0))
    assert found["cost_saved"] == pytest.approx((150 - 50 - 2 * 11) / 150)
    assert found["alarm_rate"] == pytest.approx(11 / 22)


def test_intervals_hold_the_value_and_shrink_with_more_rows():
    widths = []
    for count in (1000, 16_000):
        output, truth = some_rows(rows=count)
        figures = evaluate({"model": output}, truth, CRITERIA, resamples=200, confidence=0.95, seed=0)[
            "model"
        ]
        for name in ("auc", "average_precision", "precision", "recall", "cost_saved"):
            assert figures[name].low <= figures[name].value <= figures[name].high, name
        widths.append(figures["average_precision"].high - figures["average_precision"].low)
    assert widths[1] < widths[0] / 2


def test_calibrated_scores_have_no_calibration_error():
    rng = np.random.default_rng(0)
    score = rng.beta(0.5, 10, 200_000)
    label = (rng.random(len(score)) < score).astype(np.int8)
    truth = GroundTruth(label, np.ones(len(label)), np.ones(len(label)))
    assert measure(ModelOutput(score, score > 0.5), truth, CRITERIA)["calibration_error"] < 0.002
    assert measure(ModelOutput(np.sqrt(score), score > 0.5), truth, CRITERIA)["calibration_error"] > 0.1


def test_best_f1_is_that_of_a_search_over_all_thresholds():
    rng = np.random.default_rng(4)
    label, weight = rng.random(300) < 0.1, rng.uniform(0.5, 3, 300)
    score = np.round(np.where(label, rng.beta(4, 2, 300), rng.beta(2, 4, 300)), 2)  # with ties
    found = at_best_f1(score, label, weight)
    best = {}
    for threshold in np.unique(score):
        alarm = score >= threshold
        caught = weight[alarm & label].sum()
        precision, recall = caught / weight[alarm].sum(), caught / weight[label].sum()
        f1 = 2 * precision * recall / (precision + recall)
        if f1 > best.get("f1", 0):
            best = {"precision": precision, "recall": recall, "f1": f1}
    assert found == pytest.approx(best)


def test_interval_of_a_perfect_ranking_does_not_collapse():
    """Seen: `1.000 (1.000-1.000)` of 20 frauds."""
    label = np.repeat(np.int8([0, 1]), [980, 20])
    truth = GroundTruth(label, np.ones(1000), np.ones(1000))
    perfect = ModelOutput(label.astype(float), label == 1)
    found = evaluate({"model": perfect}, truth, CRITERIA, resamples=50, confidence=0.95, seed=0)["model"]
    for metric in ("auc", "average_precision", "recall", "precision"):
        assert found[metric].value == found[metric].high == 1
        assert found[metric].low == pytest.approx(20 / (20 + 1.96**2), abs=1e-3)  # Wilson, all of 20


def test_every_interval_holds_its_value():
    for seed in range(5):
        output, truth = some_rows(seed, rows=300)
        figures = evaluate({"m": output}, truth, CRITERIA, resamples=20, confidence=0.6, seed=seed)["m"]
        assert all(figure.low <= figure.value <= figure.high for figure in figures.values())
