"""Pure: two scores to a calibrated probability and a decision. Knows no BentoML."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Action(Enum):
    """What is done with a transaction; the value is its code in the answer of `decide`."""

    APPROVE = 0
    REVIEW = 1
    DECLINE = 2


RISK_LEVELS = {Action.APPROVE: "LOW", Action.REVIEW: "MEDIUM", Action.DECLINE: "HIGH"}


@dataclass(frozen=True)
class Thresholds:
    """A model is alarmed when its score is at least its threshold."""

    neural_net: float
    xgboost: float


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


def decide(neural_net: Floats, xgboost: Floats, thresholds: Thresholds) -> npt.NDArray[np.int64]:
    """Return the code of the `Action` for each pair of scores.

    The network catches, the trees confirm: both alarmed declines, one alone is reviewed.

    Examples
    --------
    >>> both = Thresholds(neural_net=0.5, xgboost=0.5)
    >>> decide(np.array([0.1, 0.9, 0.1, 0.9]), np.array([0.1, 0.1, 0.9, 0.9]), both).tolist()
    [0, 1, 1, 2]
    """
    alarmed = (neural_net >= thresholds.neural_net).astype(np.int64)
    return alarmed + (xgboost >= thresholds.xgboost)
