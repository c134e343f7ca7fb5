"""Recall, precision and cost of the decided stream, at its prevalence and with intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from demo.ledger import Decided

Floats: TypeAlias = npt.NDArray[np.float64]
#: What a look at one alarm costs, in the currency of Amount: the default of ``configs/training.yaml``.
REVIEW_COST = 1.0
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A figure with the 95 % interval of a stratified bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f}  (95 %: {self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Truth:
    """Label, amount and weight of one held-out transaction."""

    is_fraud: bool
    amount: float
    weight: float


@dataclass(frozen=True)
class Quality:
    """How the decisions compare with the labels.

    Attributes
    ----------
    frauds, caught : int
        Frauds in the stream, and those with an alarm; rows, not weighted.
    prevalence : float
        Weighted share of fraud, the prevalence at which the figures hold.
    recall, precision, cost_saved : Estimate or None
        None where the stream has no fraud or, for precision, no alarm.
    """

    frauds: int
    caught: int
    prevalence: float
    recall: Estimate | None
    precision: Estimate | None
    cost_saved: Estimate | None


def read_truth(path: Path) -> dict[str, Truth]:
    """Read the labels of the held-out file by transaction id."""
    import pyarrow.parquet as pq  # heavy, and only the summary needs it

    table = pq.read_table(path, columns=["transaction_id", "Class", "Amount", "sample_weight"])
    columns = (table[name].to_pylist() for name in table.column_names)
    return {
        str(name): Truth(label == 1, amount, weight)
        for name, label, amount, weight in zip(*columns, strict=True)
    }


def assess(decided: list[Decided], truth: Mapping[str, Truth], seed: int = 0) -> Quality:
    """Compare decisions with labels.

    Parameters
    ----------
    decided : list of Decided
        Decisions; those without a label are left out.
    truth : mapping
        Labels by transaction id.
    seed : int
        Of the bootstrap, which resamples frauds and genuine transactions apart.
    """
    known = [(truth.get(d.transaction_id or ""), d.is_alarm) for d in decided]
    rows = [(t, alarm) for t, alarm in known if t is not None]
    fraud = np.array([t.is_fraud for t, _ in rows], dtype=bool)
    alarm = np.array([a for _, a in rows], dtype=bool)
    weight = np.array([t.weight for t, _ in rows], dtype=np.float64)
    amount = np.array([t.amount for t, _ in rows], dtype=np.float64)
    table = np.stack(
        [
            weight * (fraud & alarm),
            weight * fraud,
            weight * alarm,
            weight * amount * (fraud & ~alarm),
            weight * amount * fraud,
        ]
    )
    resamples = _bootstrap(table, fraud, np.random.default_rng(seed))
    sums = table.sum(axis=1)
    return Quality(
        frauds=int(fraud.sum()),
        caught=int((fraud & alarm).sum()),
        prevalence=float(sums[1] / weight.sum()) if rows else 0.0,
        recall=_estimate(_recall, sums, resamples),
        precision=_estimate(_precision, sums, resamples),
        cost_saved=_estimate(_cost_saved, sums, resamples),
    )


def _bootstrap(table: Floats, fraud: npt.NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Return the row sums of `table` over stratified resamples; (5, RESAMPLES)."""
    total = np.zeros((len(table), RESAMPLES))
    for stratum in (np.flatnonzero(fraud), np.flatnonzero(~fraud)):
        if len(stratum):
            for b in range(RESAMPLES):
                total[:, b] += table[:, rng.choice(stratum, len(stratum))].sum(axis=1)
    return total


def _recall(sums: Floats) -> Floats:
    return np.asarray(sums[0] / sums[1])


def _precision(sums: Floats) -> Floats:
    return np.asarray(sums[0] / sums[2])


def _cost_saved(sums: Floats) -> Floats:
    """Share of the amount at risk that the alarms save, after what they cost."""
    return np.asarray(1.0 - (sums[3] + REVIEW_COST * sums[2]) / sums[4])


def _estimate(figure: Callable[[Floats], Floats], sums: Floats, resamples: Floats) -> Estimate | None:
    with np.errstate(divide="ignore", invalid="ignore"):
        value, spread = float(figure(sums)), figure(resamples)
    if not np.isfinite(value):
        return None
    low, high = np.percentile(spread[np.isfinite(spread)], [2.5, 97.5])
    return Estimate(value, float(low), float(high))
