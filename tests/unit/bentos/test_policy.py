"""Scores to probability and decision."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bentos.policy import (
    RISK_LEVELS,
    Action,
    Alarm,
    Calibration,
    DecisionRule,
    ExpectedLoss,
    Thresholds,
    action_for,
    is_fraud,
    names_of,
    raise_alarms,
)

THRESHOLDS = Thresholds(neural_net=0.8, xgboost=0.4)
RULE = DecisionRule(THRESHOLDS, ExpectedLoss(bound=6.0))
CALIBRATION = Calibration(intercept=-2.0, neural_net=0.6, xgboost=0.5, epsilon=1e-7)
SCORES = st.floats(0, 1, width=32)


def alarms(neural_net: float, xgboost: float, expected_loss: float = 0.0, rule: DecisionRule = RULE) -> Alarm:
    raised = raise_alarms(np.array([neural_net]), np.array([xgboost]), np.array([expected_loss]), rule)
    return Alarm(int(raised[0]))


def action(neural_net: float, xgboost: float, expected_loss: float = 0.0) -> Action:
    return action_for(alarms(neural_net, xgboost, expected_loss))


def test_both_alarmed_declines_one_is_reviewed_none_is_approved() -> None:
    assert action(0.9, 0.5) is Action.DECLINE
    assert action(0.9, 0.1) is Action.REVIEW
    assert action(0.1, 0.5) is Action.REVIEW
    assert action(0.1, 0.1) is Action.APPROVE


def test_a_score_at_its_threshold_alarms() -> None:
    assert action(0.8, 0.4) is Action.DECLINE
    assert action(np.nextafter(0.8, 0), np.nextafter(0.4, 0)) is Action.APPROVE


def test_an_expected_loss_at_its_bound_asks_for_a_review_and_calls_nothing_fraud() -> None:
    raised = alarms(0.1, 0.1, 6.0)
    assert (action_for(raised), is_fraud(raised)) == (Action.REVIEW, False)
    assert names_of(raised) == ["expected_loss"]
    assert alarms(0.1, 0.1, np.nextafter(6.0, 0)) == Alarm(0)
    assert alarms(0.1, 0.1, 1e9, DecisionRule(THRESHOLDS)) == Alarm(0), "off"
    assert names_of(alarms(0.9, 0.5, 7.0)) == ["neural_net", "xgboost", "expected_loss"]
    assert action(0.9, 0.5, 7.0) is Action.DECLINE


def test_risk_is_one_for_one_with_the_decision() -> None:
    assert [RISK_LEVELS[v] for v in (Action.APPROVE, Action.REVIEW, Action.DECLINE)] == [
        "LOW",
        "MEDIUM",
        "HIGH",
    ]


@given(SCORES, SCORES)
def test_probability_stays_in_its_range_even_for_certain_models(neural_net: float, xgboost: float) -> None:
    probability = CALIBRATION.probability(np.array([neural_net]), np.array([xgboost]))
    assert 0 <= probability[0] <= 1


@given(SCORES, SCORES, SCORES)
def test_a_higher_score_never_means_a_lower_probability(one: float, other: float, xgboost: float) -> None:
    low, high = sorted((one, other))
    rising = CALIBRATION.probability(np.array([low, high]), np.array([xgboost, xgboost]))
    assert rising[0] <= rising[1] + 1e-15


def test_the_formula_of_the_release() -> None:
    got = CALIBRATION.probability(np.array([0.7]), np.array([0.2]))[0]
    log_odds = -2.0 + 0.6 * np.log(0.7 / 0.3) + 0.5 * np.log(0.2 / 0.8)
    assert abs(got - 1 / (1 + np.exp(-log_odds))) < 1e-12
