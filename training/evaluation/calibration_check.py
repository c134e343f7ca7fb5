"""Whether probabilities agree with what happened, as far as so many frauds can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import GroundTruth
from training.evaluation.log_odds import logit, sigmoid

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationCheck:
    """Spiegelhalter's z with the frauds that were expected and seen.

    Attributes
    ----------
    z : float
        How many standard deviations the squared error lies from what the probabilities promise; about normal
        with mean 0 and standard deviation 1 where they are right. Infinite where what they call impossible
        happened.
    expected, seen : float
        Frauds among the rows.
    """

    z: float
    expected: float
    seen: float


def check_calibration(probability: Floats, truth: GroundTruth) -> CalibrationCheck:
    """Compare probabilities, which hold for the stream, with the labels of rows drawn from it by class.

    Notes
    -----
    Spiegelhalter (1986): ``sum((y - p)(1 - 2p)) / sqrt(sum((1 - 2p)^2 p (1 - p)))``. Genuine rows that stand
    for ``w`` transactions each were drawn ``w`` times as rarely as frauds, so that the odds of fraud among
    the rows are ``w`` times those of the stream (Dal Pozzolo et al. 2015, eq. 4); with these the rows are
    independent draws and need no weight.
    """
    label = truth.label.astype(np.float64)
    rarity = truth.weight[label == 0].mean() / truth.weight[label == 1].mean()
    p = sigmoid(logit(probability, epsilon=1e-12) + np.log(rarity))
    p = np.where(probability <= 0, 0.0, np.where(probability >= 1, 1.0, p))
    variance = float(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    distance = float(((label - p) * (1 - 2 * p)).sum())
    impossible = float("inf") if distance else 0.0
    z = distance / variance**0.5 if variance > 0 else impossible
    return CalibrationCheck(z, float(p.sum()), float(label.sum()))


def largest_z(confidence: float, frauds: int, frauds_fitted: int) -> float:
    """Return the largest |z| that chance explains.

    The probabilities were fitted on `frauds_fitted` frauds, and the mean of so few is as uncertain as that of
    the `frauds` judged: both add to the spread of z.
    """
    from scipy.stats import norm

    return float(norm.ppf((1 + confidence) / 2) * (1 + frauds / max(frauds_fitted, 1)) ** 0.5)
