"""Whether probabilities agree with what happened, as far as so many frauds can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import GroundTruth
from training.evaluation.log_odds import logit, sigmoid

Floats = NDArray[np.float64]

# Beyond it a probability is as good as certain: one fraud at 1e-12 must not decide the slope alone.
LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Interval:
    """A positive ratio with the ends of its interval; not a number where the rows do not tell."""

    value: float
    low: float
    high: float

    def may_lie_within(self, factor: float) -> bool:
        """Say whether some ratio of the interval is at most `factor` from 1, either way."""
        return bool(self.low <= factor and self.high >= 1 / factor)


@dataclass(frozen=True)
class CalibrationCheck:
    """Frauds expected and seen, and how the log-odds have to be stretched to fit the labels.

    Attributes
    ----------
    expected, seen : float
        Frauds among the rows.
    ratio : Interval
        Seen over expected; 1 where the probabilities are right on the whole.
    slope : Interval
        Factor on the log-odds; below 1 the probabilities are too extreme, above 1 too cautious.
    """

    expected: float
    seen: float
    ratio: Interval
    slope: Interval


def check_calibration(
    probability: Floats, truth: GroundTruth, *, confidence: float, frauds_fitted: int
) -> CalibrationCheck:
    """Compare probabilities, which hold for the stream, with the labels of rows drawn from it by class.

    Parameters
    ----------
    probability : float64 array of shape (n,)
        In [0, 1].
    truth : GroundTruth
        Labels and weights of the rows.
    confidence : float
        Coverage of the intervals, in (0, 1).
    frauds_fitted : int
        Frauds that the calibration was fitted on: the fewer, the wider the intervals.

    Notes
    -----
    Cox (1958): ``logit P(fraud) = a + b logit(p)``, fitted by maximum likelihood; b is the slope. Genuine
    rows that stand for ``w`` transactions each were drawn ``w`` times as rarely as frauds, so the odds of
    fraud among the rows are ``w`` times those of the stream (Dal Pozzolo et al. 2015, eq. 4); with these the
    rows are independent draws and need no weight.
    """
    from scipy.stats import norm

    label = truth.label.astype(np.float64)
    rarity = truth.weight[label == 0].mean() / truth.weight[label == 1].mean()
    log_odds = logit(probability, epsilon=LEAST_PROBABILITY) + np.log(rarity)
    expected, seen = float(sigmoid(log_odds).sum()), float(label.sum())
    # The mean of the frauds fitted is as uncertain as that of the frauds judged: both widen the intervals.
    width = float(norm.ppf((1 + confidence) / 2)) * (1 + seen / max(frauds_fitted, 1)) ** 0.5
    spread = float(np.exp(width / max(seen, 1.0) ** 0.5))  # of a count, on the scale of its logarithm
    ratio = seen / expected
    slope, error = _fit_slope(log_odds, label)
    return CalibrationCheck(
        expected,
        seen,
        Interval(ratio, ratio / spread, ratio * spread),
        Interval(slope, slope - width * error, slope + width * error),
    )


def _fit_slope(log_odds: Floats, label: Floats) -> tuple[float, float]:
    """Return the slope on `log_odds` and its standard error; NaN where the rows have none."""
    from sklearn.linear_model import LogisticRegression

    if not np.isfinite(log_odds).all() or np.ptp(log_odds) < 1e-9:  # the same of every row: no slope
        return float("nan"), float("nan")
    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky").fit(log_odds[:, None], label)
    slope = float(fitted.coef_[0, 0])
    p = fitted.predict_proba(log_odds[:, None])[:, 1]
    weight = p * (1 - p)
    centred = log_odds - np.average(log_odds, weights=weight)
    return slope, float((weight * centred**2).sum() ** -0.5)
