"""Scores to probability and decision."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bentos.policy import RISK_LEVELS, Action, Calibration, Thresholds, decide

THRESHOLDS = Thresholds(neural_net=0.8, xgboost=0.4)
CALIBRATION = Calibration(intercept=-2.0, neural_net=0.6, xgboost=0.5, epsilon=1e-7)
SCORES = st.floats(0, 1, width=32)


def verdict(neural_net: float, xgboost: float) -> Action:
    return Action(decide(np.array([neural_net]), np.array([xgboost]), THRESHOLDS)[0])


def test_both_alarmed_declines_one_is_reviewed_none_is_approved() -> None:
    assert verdict(0.9, 0.5) is Action.DECLINE
    assert verdict(0.9, 0.1) is Action.REVIEW
    assert verdict(0.1, 0.5) is Action.REVIEW
    assert verdict(0.1, 0.1) is Action.APPROVE


def test_a_score_at_its_threshold_alarms() -> None:
    assert verdict(0.8, 0.4) is Action.DECLINE
    assert verdict(np.nextafter(0.8, 0), np.nextafter(0.4, 0)) is Action.APPROVE


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
