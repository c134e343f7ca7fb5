"""Whether a challenger may become champion: not worse on rows new to both, calibrated, fast enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import GroundTruth
from training.evaluation.metrics import Criteria, Estimate, ModelOutput, measure, resampled
from training.settings.sections import GateSettings

COMPARED = ("average_precision", "cost_saved")


@dataclass(frozen=True)
class GateResult:
    """The gate's answer with its reasons."""

    reasons: tuple[str, ...]  # why not; empty when the challenger may pass
    notes: tuple[str, ...]  # what was compared, or why nothing was
    differences: Mapping[str, Estimate]  # challenger minus champion

    @property
    def passed(self) -> bool:
        """Whether the challenger may become champion."""
        return not self.reasons

    def sentence(self) -> str:
        """Return the verdict as text."""
        head = "passed" if self.passed else "refused"
        return f"{head}: {'; '.join((*self.reasons, *self.notes)) or 'nothing to compare with'}"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A challenger on its own test rows."""

    output: ModelOutput  # fraud probability and alarms
    truth: GroundTruth
    calibration_error: float
    latency_ms: float  # median of one transaction through both models


def judge(
    *,
    candidate: Candidate,
    champion: ModelOutput | None,
    unseen: NDArray[np.bool_],
    criteria: Criteria,
    settings: GateSettings,
    seed: int,
    unseen_known: bool = True,
) -> GateResult:
    """Compare a challenger with the champion.

    Parameters
    ----------
    champion : ModelOutput or None
        Fraud probability and alarms on the challenger's test rows; without a champion nothing is compared.
    unseen : bool array of shape (n,)
        Rows the champion was not fitted on either: only these are compared.
    unseen_known : bool
        False where nothing tells which these are, so that all rows are compared and the verdict says so.
    """
    truth, challenger = candidate.truth, candidate.output
    reasons = _own_reasons(candidate, settings)
    if champion is None:
        return GateResult(tuple(reasons), ("there is no champion yet",), {})
    frauds = int((truth.label[unseen] == 1).sum())
    if frauds < settings.min_frauds or (truth.label[unseen] == 0).sum() == 0:
        note = f"only {frauds} test frauds are new to both, too few to compare with the champion"
        return GateResult(tuple(reasons), (note,), {})
    differences = _differences(
        champion.only(unseen), challenger.only(unseen), truth.only(unseen), criteria, settings, seed
    )
    reasons += _comparison_reasons(differences, settings)
    compared = ", ".join(f"{_words(name)} {_signed(difference)}" for name, difference in differences.items())
    notes = [f"against the champion on {frauds} frauds: {compared}"]
    if not unseen_known:
        notes.append("which of them the champion was fitted on is unknown, and those favour it")
    return GateResult(tuple(reasons), tuple(notes), differences)


def _own_reasons(candidate: Candidate, settings: GateSettings) -> list[str]:
    calibration_error, latency_ms = candidate.calibration_error, candidate.latency_ms
    reasons = []
    if not calibration_error <= settings.max_calibration_error:
        reasons.append(
            f"calibration error {calibration_error:.4f} is above {settings.max_calibration_error:g}"
        )
    if not latency_ms <= settings.latency_budget_ms:
        reasons.append(f"{latency_ms:.2f} ms for one transaction is above {settings.latency_budget_ms:g} ms")
    return reasons


def _differences(
    champion: ModelOutput,
    challenger: ModelOutput,
    truth: GroundTruth,
    criteria: Criteria,
    settings: GateSettings,
    seed: int,
) -> dict[str, Estimate]:
    models = {"champion": champion, "challenger": challenger}
    drawn = resampled(models, truth, criteria, resamples=settings.resamples, seed=seed)
    value = {name: measure(judged, truth, criteria) for name, judged in models.items()}
    tail = (1 - settings.confidence) / 2
    result = {}
    for metric in COMPARED:
        difference = drawn["challenger"][metric] - drawn["champion"][metric]
        low, high = np.quantile(difference, [tail, 1 - tail])
        point = value["challenger"][metric] - value["champion"][metric]
        result[metric] = Estimate(point, float(low), float(high))
    return result


def _comparison_reasons(differences: Mapping[str, Estimate], settings: GateSettings) -> list[str]:
    allowed = {
        "average_precision": settings.max_loss_average_precision,
        "cost_saved": settings.max_loss_cost_saved,
    }
    reasons = []
    for metric, difference in differences.items():
        if difference.high < 0:
            reasons.append(f"{_words(metric)} is certainly below the champion's ({_signed(difference)})")
        elif difference.value < -allowed[metric]:
            below = f"{-difference.value:.3f} below the champion's"
            reasons.append(f"{_words(metric)} is {below}, {allowed[metric]:g} is allowed")
    return reasons


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _signed(figure: Estimate) -> str:
    return f"{figure.value:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"
