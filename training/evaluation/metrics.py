"""Metrics of scores at the prevalence the weights give; every figure can carry a bootstrap interval.

Everything works on sorted arrays with weights, so that a resample is only another weight vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import norm

from training.data.labelled import GroundTruth
from training.settings.load import Settings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# Keeps a division by an empty sum finite.
TINY = 1e-300


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelOutput:
    """One model's output on the rows being judged.

    Attributes
    ----------
    score : float64 array of shape (n,)
        In [0, 1].
    alarm : bool array of shape (n,)
        Whether it takes the row for fraud, at the threshold chosen beforehand.
    looked_at : bool array of shape (n,), optional
        Whether the transaction is reviewed or declined, which costs a review and stops a fraud; what it is
        alarmed at by default. A review for expected loss alone is no alarm.
    """

    score: Floats
    alarm: Bools
    looked_at: Bools | None = None

    @property
    def handled(self) -> Bools:
        """Whether the transaction is not simply approved."""
        return self.alarm if self.looked_at is None else self.looked_at

    def only(self, mask: Bools) -> ModelOutput:
        """Return the output on the rows that `mask` selects."""
        return ModelOutput(self.score[mask], self.alarm[mask], self.handled[mask])


@dataclass(frozen=True)
class Criteria:
    """Which figures to state."""

    review_cost: float = 1.0
    alarm_rates: tuple[float, ...] = (0.001,)
    precision_at_k: tuple[int, ...] = (100,)
    calibration_bins: int = 15


def metric_criteria(settings: Settings) -> Criteria:
    """Return which figures the settings ask for."""
    return Criteria(
        settings.decision.review_cost,
        settings.evaluation.alarm_rates,
        settings.evaluation.precision_at_k,
        settings.evaluation.calibration_bins,
    )


class MetricCalculator:
    """Every metric of one model on the same rows, for any number of weight vectors.

    What does not depend on the weights is worked out once: rows of equal score form one level, and runs of
    genuine rows that no metric looks into are taken together.
    """

    def __init__(self, output: ModelOutput, truth: GroundTruth, criteria: Criteria) -> None:
        self.criteria = criteria
        level = _levels(output.score, truth, criteria)
        everything = np.arange(len(level))
        shape = (len(level), int(level.max()) + 1)
        self._all = csr_array((np.ones(len(level)), (everything, level)), shape)
        self._frauds = csr_array((truth.label.astype(np.float64), (everything, level)), shape)
        self._decided = _decision_columns(output, truth)
        self._errors = _error_columns(output.score, truth.label, criteria.calibration_bins)

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Return metric -> float64 array [b] for weight vectors [b, n]."""
        return {
            **_ranking(weights @ self._all, weights @ self._frauds, self.criteria),
            **_decision(weights @ self._decided, self.criteria.review_cost),
            **_probability(weights @ self._errors),
        }


def measure(output: ModelOutput, truth: GroundTruth, criteria: Criteria) -> dict[str, float]:
    """Return every metric at the rows' own weights."""
    values = MetricCalculator(output, truth, criteria)(truth.weight[None])
    return {name: float(value[0]) for name, value in values.items()}


def at_best_f1(score: Floats, label: Bools, weight: Floats) -> dict[str, float]:
    """Return precision, recall and F1 at the threshold where F1 is best, known in hindsight.

    Scores of a model that is still in training share no scale, so no fixed threshold would compare them.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.diff(score[order]) != 0, True)  # a threshold cannot part equal scores
    alarms, caught = weight[order].cumsum()[ends], (weight * label)[order].cumsum()[ends]
    f1 = 2 * caught / (alarms + caught[-1])
    best = int(np.argmax(f1))
    return {
        "precision": float(caught[best] / alarms[best]),
        "recall": float(caught[best] / max(caught[-1], TINY)),
        "f1": float(f1[best]),
    }


def _levels(score: Floats, truth: GroundTruth, criteria: Criteria) -> NDArray[np.intp]:
    """Return a level for each row, 0 the highest score, equal where metrics need not tell rows apart."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    starts = np.append(True, ordered[1:] != ordered[:-1])
    budget = max(
        [*(rate * truth.weight.sum() for rate in criteria.alarm_rates), *criteria.precision_at_k, 0.0]
    )
    distinct = np.cumsum(starts) - 1
    has_fraud = np.bincount(distinct, truth.label[order]) > 0
    # Resampling moves the place where a budget ends: leave a margin of three times.
    is_needed = has_fraud[distinct] | (truth.weight[order].cumsum() <= 3 * budget + truth.weight.max())
    begins = starts & (is_needed | np.append(True, is_needed[:-1]))
    level = np.empty(len(score), np.intp)
    level[order] = np.cumsum(begins) - 1
    return level


def _ranking(level_weight: Floats, level_frauds: Floats, criteria: Criteria) -> dict[str, Floats]:
    alarms, caught = level_weight.cumsum(1), level_frauds.cumsum(1)
    total, frauds = alarms[:, -1], caught[:, -1]
    genuine = level_weight - level_frauds
    # A genuine row in a level loses to the frauds above it and shares those beside it.
    above = caught - 0.5 * level_frauds
    result = {
        "auc": (above * genuine).sum(1) / (frauds * genuine.sum(1)),
        "average_precision": (caught / np.maximum(alarms, TINY) * level_frauds).sum(1) / frauds,
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


def _decision_columns(output: ModelOutput, truth: GroundTruth) -> Floats:
    fraud, alarm, handled = truth.label == 1, output.alarm, output.handled
    counts = [fraud & alarm, alarm, fraud, np.ones_like(fraud), handled]
    amounts = [fraud * truth.amount, (fraud & ~handled) * truth.amount]
    return np.stack([column.astype(np.float64) for column in (*counts, *amounts)], axis=1)


def _decision(sums: Floats, review_cost: float) -> dict[str, Floats]:
    caught, alarms, frauds, total, handled, at_risk, missed = sums.T
    return {
        "precision": caught / np.maximum(alarms, TINY),
        "recall": caught / frauds,
        "f1": 2 * caught / (alarms + frauds),
        "alarm_rate": alarms / total,
        "handled_rate": handled / total,
        "cost_saved": (at_risk - missed - review_cost * handled) / np.maximum(at_risk, TINY),
    }


def _error_columns(score: Floats, label: NDArray[np.int8], bins: int) -> csr_array:
    """Return the error in the column of the score's bin, then its square and 1 in the last two columns."""
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
    column = np.searchsorted(edges, score, side="right")
    error = label - score
    row, width = np.arange(len(score)), len(edges) + 1
    values = np.concatenate([error, error**2, np.ones(len(score))])
    columns = np.concatenate([column, np.full(len(score), width), np.full(len(score), width + 1)])
    return csr_array((values, (np.tile(row, 3), columns)), (len(score), width + 2))


def _probability(sums: Floats) -> dict[str, Floats]:
    total = sums[:, -1]
    return {"calibration_error": np.abs(sums[:, :-2]).sum(1) / total, "brier": sums[:, -2] / total}


def stratified_resamples(
    truth: GroundTruth, resamples: int, seed: int, at_once: int = 16
) -> Iterator[Floats]:
    """Yield weight matrices [b, n]: frauds and genuine rows drawn with replacement, each class in itself."""
    fraud, genuine = np.flatnonzero(truth.label == 1), np.flatnonzero(truth.label == 0)

    def draw(number: int, size: int) -> Floats:
        rng = np.random.default_rng([seed, number])
        counts = np.zeros((size, len(truth.label)))
        for group in (fraud, genuine):
            for i in range(size):
                counts[i, group] = np.bincount(rng.integers(0, len(group), len(group)), minlength=len(group))
        return counts * truth.weight

    for start in range(0, resamples, at_once):
        yield draw(start, min(at_once, resamples - start))


def evaluate(
    models: Mapping[str, ModelOutput],
    truth: GroundTruth,
    criteria: Criteria,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, dict[str, Estimate]]:
    """Return every metric of every model with its stratified-bootstrap interval; all share the resamples.

    Returns
    -------
    dict of model to dict of metric to Estimate
    """
    drawn = resampled(models, truth, criteria, resamples=resamples, seed=seed)
    tail, frauds = (1 - confidence) / 2, int((truth.label == 1).sum())
    return {
        name: {
            metric: _estimate(metric, value, drawn[name][metric], tail, frauds)
            for metric, value in measure(output, truth, criteria).items()
        }
        for name, output in models.items()
    }


# Costs may be negative, and the rest of these are no shares of frauds.
_NO_SHARES = ("cost_saved", "calibration_error", "brier", "alarm_rate", "handled_rate")


def _estimate(metric: str, value: float, drawn: Floats, tail: float, frauds: int) -> Estimate:
    """Return a metric with its percentile interval, which always holds the value.

    Where all resamples agree, as when every fraud ranks first, they show no spread: then the interval is
    Wilson's for a share of the frauds.
    """
    low, high = np.quantile(drawn, [tail, 1 - tail]).tolist()
    if low == high and metric not in _NO_SHARES:
        low, high = _wilson(value, frauds, tail)
    return Estimate(value, min(low, value), max(high, value))


def _wilson(share: float, count: int, tail: float) -> tuple[float, float]:
    z2 = float(norm.ppf(1 - tail)) ** 2 / count
    centre, half = share + z2 / 2, (z2 * (share * (1 - share) + z2 / 4)) ** 0.5
    return max(0.0, (centre - half) / (1 + z2)), min(1.0, (centre + half) / (1 + z2))


def resampled(
    models: Mapping[str, ModelOutput], truth: GroundTruth, criteria: Criteria, *, resamples: int, seed: int
) -> dict[str, dict[str, Floats]]:
    """Return every metric of every model on each resample; all models share the resamples (paired)."""
    meters = {name: MetricCalculator(output, truth, criteria) for name, output in models.items()}
    parts: dict[str, list[dict[str, Floats]]] = {name: [] for name in models}
    for weights in stratified_resamples(truth, resamples, seed):
        for name, meter in meters.items():
            parts[name].append(meter(weights))
    return {
        name: {metric: np.concatenate([part[metric] for part in found]) for metric in found[0]}
        for name, found in parts.items()
    }
