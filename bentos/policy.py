"""Pure: two scores to a calibrated probability and a decision. Knows no BentoML."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntFlag

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Action(Enum):
    """What is done with a transaction."""

    APPROVE = 0
    REVIEW = 1
    DECLINE = 2


RISK_LEVELS = {Action.APPROVE: "LOW", Action.REVIEW: "MEDIUM", Action.DECLINE: "HIGH"}


class Alarm(IntFlag):
    """What may raise a transaction; `raise_alarms` answers with any combination."""

    NEURAL_NET = 1
    XGBOOST = 2
    EXPECTED_LOSS = 4


MODELS = Alarm.NEURAL_NET | Alarm.XGBOOST
COMBINATIONS = 8


@dataclass(frozen=True)
class Thresholds:
    """A model is alarmed when its score is at least its threshold."""

    neural_net: float
    xgboost: float


@dataclass(frozen=True)
class ExpectedLoss:
    """A review is worth its cost where fraud probability x Amount is at least `bound`, account currency."""

    bound: float


@dataclass(frozen=True)
class DecisionRule:
    """What turns scores into an action; without `expected_loss` only the models raise alarms."""

    thresholds: Thresholds
    expected_loss: ExpectedLoss | None = None


@dataclass(frozen=True)
class Calibration:
    """Logistic calibration over the log-odds of both scores.

    Coefficients are not negative, so that a higher score never means a lower probability.
    """

    intercept: float
    neural_net: float
    xgboost: float
    epsilon: float

    def log_odds(self, neural_net: Floats, xgboost: Floats) -> Floats:
        """Return the log-odds of fraud for scores of equal length."""
        return (
            self.intercept
            + self.neural_net * logit(neural_net, self.epsilon)
            + self.xgboost * logit(xgboost, self.epsilon)
        )

    def probability(self, neural_net: Floats, xgboost: Floats) -> Floats:
        """Return the probability of fraud, in [0, 1], for scores of equal length."""
        return sigmoid(self.log_odds(neural_net, xgboost))


def logit(score: Floats, epsilon: float) -> Floats:
    """Return the log-odds of a score, clipped to [epsilon, 1 - epsilon] to stay finite.

    Examples
    --------
    >>> logit(np.array([0.5]), 1e-7).tolist()
    [0.0]
    """
    clipped = np.clip(score, epsilon, 1.0 - epsilon)
    log_odds: Floats = np.log(clipped) - np.log1p(-clipped)
    return log_odds


def sigmoid(log_odds: Floats) -> Floats:
    """Return the inverse of `logit`; the split keeps ``exp`` from overflowing."""
    small = np.exp(-np.abs(log_odds))
    probability: Floats = np.where(log_odds >= 0, 1.0, small) / (1.0 + small)
    return probability


def raise_alarms(
    neural_net: Floats, xgboost: Floats, expected_losses: Floats, rule: DecisionRule
) -> npt.NDArray[np.int64]:
    """Return which alarms each transaction raises, as the number of an `Alarm`.

    Examples
    --------
    >>> rule = DecisionRule(Thresholds(neural_net=0.5, xgboost=0.5), ExpectedLoss(bound=6.0))
    >>> scores = np.array([0.1, 0.9, 0.1])
    >>> raise_alarms(scores, scores, np.array([0.0, 5.9, 6.0]), rule).tolist()
    [0, 3, 4]
    """
    alarms = (neural_net >= rule.thresholds.neural_net) * int(Alarm.NEURAL_NET)
    alarms += (xgboost >= rule.thresholds.xgboost) * int(Alarm.XGBOOST)
    if rule.expected_loss is not None:
        alarms += (expected_losses >= rule.expected_loss.bound) * int(Alarm.EXPECTED_LOSS)
    return alarms


def action_for(alarms: Alarm) -> Action:
    """Return what is done: the network catches and the trees confirm, so both decline and one is reviewed.

    Examples
    --------
    >>> action_for(Alarm.EXPECTED_LOSS)
    <Action.REVIEW: 1>
    """
    if alarms & MODELS == MODELS:
        return Action.DECLINE
    return Action.REVIEW if alarms else Action.APPROVE


def is_fraud(alarms: Alarm) -> bool:
    """Say whether a model is alarmed; a review for expected loss alone calls nothing a fraud."""
    return bool(alarms & MODELS)


def names_of(alarms: Alarm) -> list[str]:
    """Return the alarms by name, such as ``["neural_net", "expected_loss"]``."""
    return [str(alarm.name).lower() for alarm in Alarm if alarm in alarms]
