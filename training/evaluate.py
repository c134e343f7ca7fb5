"""Metrics of scores at the prevalence the weights give; every figure can carry a bootstrap interval.

Everything works on sorted arrays with weights, so that a resample is only another weight vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Figure:
    """A metric with its interval."""

    value: float
    low: float
    high: float


def logit(p: NDArray[np.floating], epsilon: float = 1e-7) -> Floats:
    """Return log-odds of probabilities clipped to [epsilon, 1 - epsilon]."""
    clipped = np.clip(p.astype(np.float64), epsilon, 1 - epsilon)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(x: Floats) -> Floats:
    """Return probabilities of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


@dataclass(frozen=True)
class Judged:
    """One model's output on the rows being judged."""

    score: Floats  # [n] in [0, 1]
    alarm: Bools  # [n] the decision at the threshold chosen beforehand


@dataclass(frozen=True)
class Rows:
    """What is known about the rows being judged, the same for every model."""

    label: NDArray[np.int8]
    weight: Floats
    amount: Floats


@dataclass(frozen=True)
class Criteria:
    """Which figures to state."""

    review_cost: float = 1.0
    alarm_rates: tuple[float, ...] = (0.001,)
    precision_at_k: tuple[int, ...] = (100,)
    calibration_bins: int = 15


def measure(judged: Judged, rows: Rows, criteria: Criteria, weights: Floats) -> dict[str, Floats]:
    """Return every metric for each weight vector.

    Parameters
    ----------
    weights : float64 array of shape (b, n)
        One weight vector per row: the rows' own for the value, times multiplicities for a resample.

    Returns
    -------
    dict of str to float64 array of shape (b,)
    """
    return {
        **_ranking(judged.score, rows.label, criteria, weights),
        **_decision(judged.alarm, rows, criteria.review_cost, weights),
        **_probability(judged.score, rows.label, criteria.calibration_bins, weights),
    }


def _ranking(
    score: Floats, label: NDArray[np.int8], criteria: Criteria, weights: Floats
) -> dict[str, Floats]:
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # ties count together
    sorted_weights = weights[:, order]
    alarms = sorted_weights.cumsum(1)[:, ends]
    caught = (sorted_weights * label[order]).cumsum(1)[:, ends]
    missed_share = 1 - caught / caught[:, -1:]
    total, frauds = alarms[:, -1], caught[:, -1]
    false = alarms - caught
    steps = np.diff(caught, axis=1, prepend=0.0)
    false_steps = np.diff(false, axis=1, prepend=0.0)
    found = 1 - missed_share - 0.5 * steps / frauds[:, None]
    precision = caught / np.maximum(alarms, 1e-300)
    result = {
        "auc": (found * false_steps).sum(1) / false[:, -1],
        "average_precision": (precision * steps).sum(1) / frauds,
    }
    for rate in criteria.alarm_rates:
        result[f"recall_at_alarm_rate_{rate:g}"] = _at(caught, alarms, rate * total) / frauds
    for k in criteria.precision_at_k:
        result[f"precision_at_{k}"] = _at(caught, alarms, np.full_like(total, k)) / np.minimum(k, total)
    return result


def _at(caught: Floats, alarms: Floats, budget: Floats) -> Floats:
    """Return the weight of frauds among the `budget` highest scores, shared evenly within a tie."""
    result = np.empty(len(budget))
    for i, limit in enumerate(budget):
        result[i] = np.interp(limit, np.append(0.0, alarms[i]), np.append(0.0, caught[i]))
    return result


def _decision(alarm: Bools, rows: Rows, review_cost: float, weights: Floats) -> dict[str, Floats]:
    fraud = rows.label == 1
    columns = np.stack([fraud & alarm, alarm, fraud, np.ones_like(fraud)], axis=1).astype(np.float64)
    caught, alarms, frauds, total = (weights @ columns).T
    amounts = np.stack([fraud * rows.amount, (fraud & ~alarm) * rows.amount], axis=1)
    at_risk, missed = (weights @ amounts).T
    precision = caught / np.maximum(alarms, 1e-300)
    recall = caught / frauds
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * caught / (alarms + frauds),
        "alarm_rate": alarms / total,
        "cost_saved": (at_risk - missed - review_cost * alarms) / np.maximum(at_risk, 1e-300),
    }


def _probability(score: Floats, label: NDArray[np.int8], bins: int, weights: Floats) -> dict[str, Floats]:
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
    member = np.searchsorted(edges, score, side="right")
    error = label - score
    columns = np.zeros((len(score), len(edges) + 1))
    columns[np.arange(len(score)), member] = error
    total = weights.sum(1)
    return {
        "calibration_error": np.abs(weights @ columns).sum(1) / total,
        "brier": weights @ error**2 / total,
    }


def stratified_resamples(rows: Rows, resamples: int, seed: int, at_once: int = 16) -> Iterator[Floats]:
    """Yield weight matrices [b, n]: frauds and genuine rows drawn with replacement, each class in itself."""
    fraud, genuine = np.flatnonzero(rows.label == 1), np.flatnonzero(rows.label == 0)

    def draw(number: int, size: int) -> Floats:
        rng = np.random.default_rng([seed, number])
        counts = np.zeros((size, len(rows.label)))
        for group in (fraud, genuine):
            for i in range(size):
                counts[i, group] = np.bincount(rng.integers(0, len(group), len(group)), minlength=len(group))
        return counts * rows.weight

    for start in range(0, resamples, at_once):
        yield draw(start, min(at_once, resamples - start))


def evaluate(
    models: Mapping[str, Judged],
    rows: Rows,
    criteria: Criteria,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, dict[str, Figure]]:
    """Return every metric of every model with its stratified-bootstrap interval; all share the resamples.

    Returns
    -------
    dict of model to dict of metric to Figure
    """
    values = {name: measure(judged, rows, criteria, rows.weight[None]) for name, judged in models.items()}
    drawn = resampled(models, rows, criteria, resamples=resamples, seed=seed)
    tail = (1 - confidence) / 2
    return {
        name: {
            metric: Figure(float(value[0]), *np.quantile(drawn[name][metric], [tail, 1 - tail]).tolist())
            for metric, value in metrics.items()
        }
        for name, metrics in values.items()
    }


def resampled(
    models: Mapping[str, Judged], rows: Rows, criteria: Criteria, *, resamples: int, seed: int
) -> dict[str, dict[str, Floats]]:
    """Return every metric of every model on each resample; all models share the resamples (paired)."""
    parts: dict[str, dict[str, list[Floats]]] = {name: {} for name in models}
    for weights in stratified_resamples(rows, resamples, seed):
        for name, judged in models.items():
            for metric, value in measure(judged, rows, criteria, weights).items():
                parts[name].setdefault(metric, []).append(value)
    return {
        name: {metric: np.concatenate(pieces) for metric, pieces in metrics.items()}
        for name, metrics in parts.items()
    }
