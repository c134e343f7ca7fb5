import numpy as np
import pytest

from training.data.labelled import GroundTruth
from training.evaluation.decision import (
    Calibration,
    Costs,
    Thresholds,
    choose_thresholds,
    fit_calibration,
    fit_decision_rule,
    least_score,
)
from training.evaluation.log_odds import sigmoid


def two_scores(seed=0, rows=4000, prevalence=0.03):
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < prevalence).astype(np.int8)
    scores = [sigmoid(rng.normal(-4, 1.5, rows) + label * rng.gamma(4, 1.3, rows)) for _ in range(2)]
    known = GroundTruth(label, np.where(label == 1, 1.0, 5.0), rng.lognormal(3.5, 1.2, rows))
    return *(score.astype(np.float32) for score in scores), known


def test_probability_is_calibrated_at_the_weighted_prevalence():
    network, trees, truth = two_scores(rows=60_000)
    calibration = fit_calibration(network, trees, truth)
    probability = calibration.probability(network, trees)
    assert np.average(probability, weights=truth.weight) == pytest.approx(
        np.average(truth.label, weights=truth.weight), rel=0.02
    )
    assert calibration.neural_net > 0.1
    assert calibration.xgboost > 0.1


def test_a_harmful_score_gets_no_weight_rather_than_a_negative_one():
    network, trees, truth = two_scores()
    calibration = fit_calibration(network, 1 - trees, truth)
    assert calibration.xgboost == 0.0
    assert calibration.neural_net > 0


def test_document_is_the_form_serving_reads():
    assert Calibration(0.5, 1.0, 2.0).as_document() == {
        "method": "logistic",
        "intercept": 0.5,
        "coefficients": {"neural_net": 1.0, "xgboost": 2.0},
        "epsilon": 1e-7,
    }


def test_scores_of_exactly_zero_and_one_stay_finite():
    probability = Calibration(0.0, 1.0, 1.0).probability(np.float32([0, 1]), np.float32([0, 1]))
    assert np.isfinite(probability).all()
    assert 0 <= probability[0] < 1e-12
    assert 1 - 1e-12 < probability[1] <= 1


def alarms(thresholds, network, trees):
    return thresholds.alarms(network, trees)


def cost_of(thresholds, network, trees, truth, review_cost):
    alarm = alarms(thresholds, network, trees)
    missed = (truth.label == 1) & ~alarm
    return (truth.weight * missed * truth.amount).sum() + review_cost * truth.weight[alarm].sum()


def test_cheapest_thresholds_are_those_of_a_search_over_all_pairs():
    network, trees, truth = two_scores(rows=400, prevalence=0.05)
    chosen = choose_thresholds(network, trees, truth, Costs(1.0, 0.0, 0.0))
    least = min(
        cost_of(Thresholds(a, b), network, trees, truth, 1.0)
        for a in [*np.unique(network).tolist(), 2.0]
        for b in [*np.unique(trees).tolist(), 2.0]
    )
    assert cost_of(chosen, network, trees, truth, 1.0) == pytest.approx(least)


def test_slack_buys_recall_within_its_bound():
    network, trees, truth = two_scores(rows=3000)
    fraud = truth.label == 1
    at_risk = (truth.weight * fraud * truth.amount).sum()
    found = []
    for slack in (0.0, 0.05, 0.3):
        chosen = choose_thresholds(network, trees, truth, Costs(1.0, 0.0, slack))
        caught = alarms(chosen, network, trees)[fraud].sum()
        found.append((caught, cost_of(chosen, network, trees, truth, 1.0)))
    assert found[0][0] <= found[1][0] <= found[2][0]
    assert found[0][0] < found[2][0]
    assert found[1][1] <= found[0][1] + 0.05 * at_risk


@pytest.mark.parametrize("least", [0.3, 0.7, 0.95])
def test_alarms_are_precise_enough(least):
    network, trees, truth = two_scores()
    chosen = choose_thresholds(network, trees, truth, Costs(1.0, least, 1.0))
    alarm = alarms(chosen, network, trees)
    assert truth.weight[alarm & (truth.label == 1)].sum() / truth.weight[alarm].sum() >= least


def test_scores_without_information_still_give_thresholds():
    rng = np.random.default_rng(0)
    _, _, truth = two_scores(rows=300)
    noise = rng.random((2, 300)).astype(np.float32)
    chosen = choose_thresholds(*noise, truth, Costs(1.0, 0.99, 0.0))
    assert 0 <= chosen.neural_net <= 1
    assert 0 <= chosen.xgboost <= 1


@pytest.mark.parametrize(("genuine", "declined"), [(1, 20), (30, 0)])
def test_one_false_alarm_does_not_silence_a_model_that_confirms_many_frauds(genuine, declined):
    """Twenty frauds, all found by the trees; the network scores some genuine rows above all of them."""
    label = np.array([1] * 20 + [0] * 500, np.int8)
    trees = np.where(label == 1, 0.9, 0.1).astype(np.float32)
    network = np.concatenate([np.linspace(0.5, 0.9, 20), np.full(genuine, 0.95), np.full(500 - genuine, 0.1)])
    network = network.astype(np.float32)
    truth = GroundTruth(label, np.ones(520), np.full(520, 100.0))
    chosen = choose_thresholds(network, trees, truth, Costs(1.0, 0.3, 0.05))
    assert alarms(chosen, network, trees)[label == 1].all()
    assert ((network >= chosen.neural_net) & (trees >= chosen.xgboost)).sum() == declined


@pytest.mark.parametrize("wanted", [0.05, 0.15, 0.5])
def test_least_score_is_where_that_share_is_fraud(wanted):
    network, _, truth = two_scores(rows=200_000)
    start = least_score(network, truth, wanted)
    near = np.abs(np.log(network / (1 - network)) - np.log(start / (1 - start))) < 0.4
    assert np.average(truth.label[near], weights=truth.weight[near]) == pytest.approx(wanted, rel=0.35)


def test_score_that_says_nothing_is_alarmed_nowhere_or_everywhere():
    _, _, truth = two_scores()
    nothing = np.full(len(truth.label), 0.5, np.float32)
    prevalence = np.average(truth.label, weights=truth.weight)
    assert least_score(1 - truth.label.astype(np.float32), truth, 0.15) == 1.0  # harmful: of no weight
    assert least_score(nothing, truth, 0.0) == 0.0
    assert least_score(nothing, truth, prevalence * 2) > 0.5


def test_thresholds_hang_less_on_where_the_few_highest_genuine_rows_lie():
    """Without the bound, precision on other rows is far below what it was where thresholds were chosen."""

    def precision(least, seed):
        costs = Costs(1.0, 0.55, 1.0, min_probability=least)
        chosen = fit_decision_rule(*two_scores(seed, 2000, 0.02), costs)
        network, trees, truth = two_scores(seed + 100, 20_000, 0.02)
        alarm = alarms(chosen.thresholds, network, trees)
        return truth.weight[alarm & (truth.label == 1)].sum() / truth.weight[alarm].sum()

    bounded, free = ([precision(least, seed) for seed in range(8)] for least in (0.1, 0.0))
    assert all(one >= other for one, other in zip(bounded, free, strict=True))
    assert np.mean(bounded) > np.mean(free) + 0.05


def test_bound_raises_thresholds_and_never_lowers_one():
    network, trees, truth = two_scores()
    before, after = (
        fit_decision_rule(network, trees, truth, Costs(1.0, 0.3, 1.0, min_probability=least)).thresholds
        for least in (0.0, 0.1)
    )
    assert after.neural_net == max(before.neural_net, least_score(network, truth, 0.1))
    assert after.xgboost == max(before.xgboost, least_score(trees, truth, 0.1))
    assert after != before


def test_bound_does_not_silence_models_too_weak_to_mean_that_much():
    """Of small models no score may mean 15 %: raised to that, they would catch nothing."""
    network, trees, truth = two_scores(rows=3000, prevalence=0.01)
    found = [
        fit_decision_rule(network, trees, truth, Costs(1.0, 0.0, 1.0, min_probability=least)).thresholds
        for least in (0.0, 0.9999)
    ]
    assert found[0] == found[1]
    assert alarms(found[1], network, trees)[truth.label == 1].any()
