import numpy as np
import pytest

from training.data.labelled import GroundTruth
from training.evaluation.decision import Calibration, Costs, DecisionRule, Thresholds, fit_decision_rule
from training.evaluation.expected_loss import MULTIPLIERS, ExpectedLoss, choose_expected_loss
from training.evaluation.log_odds import sigmoid
from training.evaluation.metrics import Criteria, ModelOutput, measure


def stream(rows=40_000, seed=0):
    """Return calibrated probabilities, no alarms, and what is true about the rows."""
    rng = np.random.default_rng(seed)
    probability = sigmoid(rng.normal(-7, 2, rows))
    label = (rng.random(rows) < probability).astype(np.int8)
    return probability, np.zeros(rows, bool), GroundTruth(label, np.ones(rows), rng.lognormal(4, 1.5, rows))


def saved(rule, probability, alarm, truth):
    output = ModelOutput(probability, alarm, alarm | rule.raised(probability, truth.amount))
    return measure(output, truth, Criteria(review_cost=rule.review_cost))


def test_the_bound_is_what_a_release_states():
    rule = ExpectedLoss(2.0, 3.0)
    assert rule.as_document() == {"lambda": 2.0, "review_cost": 3.0, "bound": 6.0}
    assert rule.raised(np.array([0.06, 0.0599]), np.array([100.0, 100.0])).tolist() == [True, False]


def test_chosen_multiplier_is_expected_to_save_most_of_those_within_the_capacity():
    probability, alarm, truth = stream()
    for capacity in (0.003, 0.01, 0.05, 1.0):
        chosen = choose_expected_loss(probability, alarm, truth, 1.0, capacity)
        assert saved(chosen, probability, alarm, truth)["handled_rate"] <= capacity
        for multiplier in MULTIPLIERS:
            other = ExpectedLoss(multiplier, 1.0)
            rate = saved(other, probability, alarm, truth)["handled_rate"]
            assert rate > capacity or gain(other, probability, truth) <= gain(chosen, probability, truth)


def gain(rule, probability, truth):
    raised = rule.raised(probability, truth.amount)
    return (probability * truth.amount - rule.review_cost)[raised].sum()


def test_what_happened_to_the_few_frauds_does_not_decide():
    probability, alarm, truth = stream()
    chosen = choose_expected_loss(probability, alarm, truth, 1.0, 0.05)
    truth.label[:] = 0  # what happened is not looked at
    assert choose_expected_loss(probability, alarm, truth, 1.0, 0.05) == chosen


def test_of_a_calibrated_probability_the_cost_itself_is_the_best_bound():
    probability, alarm, truth = stream(rows=400_000)
    best = choose_expected_loss(probability, alarm, truth, 1.0, 1.0)
    assert best.multiplier <= 1.5


def test_no_capacity_no_review():
    probability, alarm, truth = stream()
    assert choose_expected_loss(probability, ~alarm, truth, 1.0, 0.5) is None


def test_review_for_expected_loss_is_no_alarm():
    rule = DecisionRule(Calibration(0.0, 0.5, 0.5), Thresholds(0.9, 0.9), ExpectedLoss(2.0, 1.0))
    network, trees = np.float32([0.95, 0.95, 0.1, 0.1, 0.1]), np.float32([0.95, 0.1, 0.95, 0.1, 0.1])
    decided = rule.decide(network, trees, np.float32([1, 1, 1, 1000, 1]))
    assert decided.action.tolist() == ["decline", "review", "review", "review", "approve"]
    assert decided.is_fraud.tolist() == [True, True, True, False, False]
    assert decided.raised_by["expected_loss"].tolist() == [False, False, False, True, False]


def test_a_document_is_read_back_as_the_same_rule():
    rule = DecisionRule(Calibration(-0.5, 0.2, 0.7), Thresholds(0.3, 0.4), ExpectedLoss(1.5, 2.0))
    document = {
        "calibration": rule.calibration.as_document(),
        "thresholds": {"neural_net": 0.3, "xgboost": 0.4},
        "expected_loss": rule.expected_loss.as_document(),
    }
    assert DecisionRule.from_document(document) == rule
    del document["expected_loss"]  # as in older releases
    assert DecisionRule.from_document(document).expected_loss is None


@pytest.mark.parametrize(
    ("capacity", "multiplier", "expected"), [(0.0, 2.0, None), (0.5, 2.5, 2.5), (0.0, None, None)]
)
def test_settings_switch_it_off_or_fix_it(capacity, multiplier, expected):
    _, _, truth = stream(rows=3000)
    truth.label[:20] = 1
    scores = np.random.default_rng(1).random((2, 3000)).astype(np.float32)
    rule = fit_decision_rule(*scores, truth, Costs(1.0, 0.0, 0.05, capacity, multiplier))
    assert (rule.expected_loss.multiplier if rule.expected_loss else None) == expected
