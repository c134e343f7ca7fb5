"""Controlled undersampling of genuine rows, and the prior correction that undoes its effect."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """Rows kept for fitting, and how the odds of fraud among them differ from the stream's.

    Attributes
    ----------
    rows : intp array of shape (m,)
        Kept rows in their old order.
    weight : float64 array of shape (m,)
        Weight of each kept row for fitting, mean 1 within each class: a weight for frauds means what it says.
    kept_share : float
        Odds of fraud in the stream over those among the kept rows; with equal weights this is the share of
        genuine rows that was kept.
    """

    rows: NDArray[np.intp]
    weight: NDArray[np.float64]
    kept_share: float


def undersample(
    label: NDArray[np.int8], weight: NDArray[np.float64], genuine_per_fraud: float, rng: np.random.Generator
) -> Sample:
    """Keep all frauds and at most `genuine_per_fraud` genuine rows for each; 0 keeps everything.

    Parameters
    ----------
    label : int8 array of shape (n,)
        1 for fraud.
    weight : float64 array of shape (n,)
        Transactions each row stands for; > 0.
    """
    genuine, frauds = np.flatnonzero(label == 0), np.flatnonzero(label == 1)
    wanted = len(genuine)
    if genuine_per_fraud:
        wanted = min(wanted, math.ceil(genuine_per_fraud * len(frauds)))
    kept = rng.choice(genuine, wanted, replace=False) if wanted < len(genuine) else genuine
    stream_odds = weight[frauds].sum() / weight[genuine].sum()
    rows = np.sort(np.concatenate([kept, frauds]))
    fitting = weight[rows].copy()
    for group in (0, 1):
        inside = label[rows] == group
        fitting[inside] /= fitting[inside].mean()
    return Sample(rows, fitting, float(stream_odds / (len(frauds) / len(kept))))


def prior_shift(kept_share: float, positive_weight: float = 1.0) -> float:
    """Return what to add to the log-odds of a score fitted on undersampled, reweighted rows.

    Notes
    -----
    Dal Pozzolo et al. (2015), eq. 4: keeping a share ``beta`` of the genuine rows turns the probability p
    into ``ps = p / (p + beta (1 - p))``; solved for p, ``logit p = logit ps + log beta``. Counting a fraud
    `positive_weight` times raises the odds by that factor in the same way.

    Examples
    --------
    >>> round(prior_shift(0.1), 4)
    -2.3026
    >>> prior_shift(0.5, 2.0) == prior_shift(0.25)
    True
    """
    return math.log(kept_share) - math.log(positive_weight)


def correct_prior(score: NDArray[np.float64], kept_share: float) -> NDArray[np.float64]:
    """Return the probability at the true prevalence of `score` fitted after undersampling.

    Examples
    --------
    >>> correct_prior(np.array([0.5]), 0.01).round(4).tolist()
    [0.0099]
    """
    return np.asarray(kept_share * score / (kept_share * score - score + 1.0))
