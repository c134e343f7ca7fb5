"""Curves with bootstrap bands: what `plots` draws, as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import GroundTruth
from training.evaluation.metrics import Floats, stratified_resamples

BAND_RESAMPLES = 64  # a band's edge needs fewer than a figure's


@dataclass(frozen=True, eq=False)
class Band:
    """A curve over a grid, with the interval of its value at each point."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


def precision_recall(score: Floats, truth: GroundTruth, *, confidence: float, seed: int) -> Band:
    """Return precision over recall."""
    grid = np.linspace(0.005, 1.0, 200)

    def precision(caught: Floats, false: Floats) -> Floats:
        recall = caught / caught[-1]
        alarms = np.maximum(caught + false, 1e-300)
        # The first score that reaches the recall: precision is not linear in between.
        place = np.minimum(np.searchsorted(recall, grid - 1e-12), len(recall) - 1)
        return np.asarray((caught / alarms)[place])

    return _band(score, truth, grid, precision, confidence, seed)


def roc(score: Floats, truth: GroundTruth, *, confidence: float, seed: int) -> Band:
    """Return the share of frauds caught over the share of genuine transactions alarmed, from 1e-5 on."""
    grid = np.logspace(-5, 0, 200)

    def caught_share(caught: Floats, false: Floats) -> Floats:
        return np.asarray(np.interp(grid, np.append(0, false / false[-1]), np.append(0, caught / caught[-1])))

    return _band(score, truth, grid, caught_share, confidence, seed)


def _band(
    score: Floats,
    truth: GroundTruth,
    grid: Floats,
    curve: Callable[[Floats, Floats], Floats],
    confidence: float,
    seed: int,
) -> Band:
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    label = truth.label[order]

    def of(weight: Floats) -> Floats:
        sorted_weight = weight[order]
        caught = (sorted_weight * label).cumsum()[ends]
        return curve(caught, sorted_weight.cumsum()[ends] - caught)

    drawn = [
        of(weight) for weights in stratified_resamples(truth, BAND_RESAMPLES, seed) for weight in weights
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.stack(drawn), [tail, 1 - tail], axis=0)
    return Band(grid, of(truth.weight), low, high)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Observed share of fraud against the predicted one, bin by bin."""

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    frauds: NDArray[np.intp]


def reliability(probability: Floats, truth: GroundTruth, bins: int) -> Reliability:
    """Return the calibration of `probability` in bins of equal width in log-odds; empty bins are left out.

    Intervals are Wilson's for the effective number of truth, ``(sum w)^2 / sum w^2``.
    """
    log_odds = np.log10(np.clip(probability, 1e-6, 1.0))
    member = np.digitize(log_odds, np.linspace(-5, 0, bins + 1)[1:-1])
    parts = [
        _reliability_bin(probability[member == i], truth, member == i)
        for i in range(bins)
        if (member == i).any()
    ]
    return Reliability(*(np.array(column) for column in zip(*parts, strict=True)))


def _reliability_bin(probability: Floats, truth: GroundTruth, inside: NDArray[np.bool_]) -> tuple[float, ...]:
    weight, label = truth.weight[inside], truth.label[inside]
    observed = float(np.average(label, weights=weight))
    effective = weight.sum() ** 2 / (weight**2).sum()
    z2 = 1.96**2 / effective
    centre = (observed + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (observed * (1 - observed) + z2 / 4)) / (1 + z2)
    return (
        float(np.average(probability, weights=weight)),
        observed,
        centre - half,
        centre + half,
        int(label.sum()),
    )


def cost_curve(score: Floats, truth: GroundTruth, review_cost: float) -> tuple[Floats, Floats]:
    """Return thresholds (falling) and the share of the amount at risk that alarming from each on saves."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    weight, fraud = truth.weight[order], truth.label[order] == 1
    at_risk = weight * fraud * truth.amount[order]
    saved = (at_risk - review_cost * weight).cumsum() / max(at_risk.sum(), 1e-300)
    return score[order][ends], saved[ends]
