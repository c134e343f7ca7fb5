"""Whether a challenger may become champion: good in itself, calibrated, fast, not worse than the champion.

What cannot be judged does not pass: too few frauds, a figure that is not a number, a champion that knows the
rows already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import GroundTruth
from training.evaluation.calibration_check import Interval, check_calibration
from training.evaluation.metrics import Criteria, Estimate, ModelOutput, evaluate, measure, resampled
from training.settings.sections import GateSettings

COMPARED = ("average_precision", "cost_saved")


@dataclass(frozen=True)
class GateResult:
    """The gate's answer with its reasons."""

    reasons: tuple[str, ...]  # why not; empty when the challenger may pass
    notes: tuple[str, ...]  # what the answer rests on
    differences: Mapping[str, Estimate]  # challenger minus champion

    @property
    def passed(self) -> bool:
        """Whether the challenger may become champion."""
        return not self.reasons

    def sentence(self) -> str:
        """Return the answer as text."""
        head = "passed" if self.passed else "refused"
        return f"{head}: {'; '.join((*self.reasons, *self.notes)) or 'nothing to compare with'}"


@dataclass(frozen=True, eq=False)
class Evidence:
    """A challenger on its own test rows.

    Attributes
    ----------
    output : ModelOutput
        Fraud probability, alarms, and what is reviewed or declined.
    truth : GroundTruth
    baseline : float64 array of shape (n,)
        Scores of logistic regression, fitted on the same rows as the challenger.
    calibration_error : float
        Expected calibration error of the probability.
    frauds_fitted : int
        Frauds the calibration was fitted on.
    latency_ms : float
        Median of one transaction through both models.
    """

    output: ModelOutput
    truth: GroundTruth
    baseline: NDArray[np.float64]
    calibration_error: float
    frauds_fitted: int
    latency_ms: float


@dataclass(frozen=True, eq=False)
class Opponent:
    """The champion on the challenger's test rows.

    Attributes
    ----------
    output : ModelOutput
    unseen : bool array of shape (n,)
        Rows the champion was not fitted on either: only these are compared.
    is_unseen_known : bool
        False where nothing tells which these are, so that all rows are compared, which favours the champion.
    """

    output: ModelOutput
    unseen: NDArray[np.bool_]
    is_unseen_known: bool = True


def evaluate_gate(
    evidence: Evidence,
    champion: Opponent | None,
    *,
    criteria: Criteria,
    settings: GateSettings,
    seed: int,
) -> GateResult:
    """Judge a challenger in itself and, where there is one, against the champion.

    Parameters
    ----------
    champion : Opponent or None
        None before the first release, and where the champion's files are gone.
    """
    reasons, notes = _judge_alone(evidence, criteria, settings, seed)
    if champion is None:
        return GateResult(tuple(reasons), (*notes, "there is no champion to compare with"), {})
    truth = evidence.truth.only(champion.unseen)
    frauds = int((truth.label == 1).sum())
    if frauds < settings.min_frauds or frauds == len(truth.label):
        reasons.append(
            f"only {frauds} test frauds are new to both, too few to compare with the champion "
            f"(gate.min_frauds is {settings.min_frauds})"
        )
        return GateResult(tuple(reasons), tuple(notes), {})
    outputs = {
        "champion": champion.output.only(champion.unseen),
        "challenger": evidence.output.only(champion.unseen),
    }
    differences = {
        metric: _difference(outputs, metric, truth, criteria, settings, seed, (1 - settings.confidence) / 2)
        for metric in COMPARED
    }
    reasons += _compare(differences, settings)
    compared = ", ".join(f"{_words(name)} {_signed(difference)}" for name, difference in differences.items())
    notes.append(f"against the champion on {frauds} frauds: {compared}")
    if not champion.is_unseen_known:
        notes.append("which of them the champion was fitted on is unknown, and those favour it")
    return GateResult(tuple(reasons), tuple(notes), differences)


def _judge_alone(
    evidence: Evidence, criteria: Criteria, settings: GateSettings, seed: int
) -> tuple[list[str], list[str]]:
    """Return why the challenger may not pass whatever the champion is, and what that rests on."""
    truth, frauds = evidence.truth, int((evidence.truth.label == 1).sum())
    reasons = []
    if not evidence.latency_ms <= settings.latency_budget_ms:
        reasons.append(
            f"{evidence.latency_ms:.2f} ms for one transaction is above {settings.latency_budget_ms:g} ms"
        )
    if frauds < settings.min_frauds or frauds == len(truth.label):
        reasons.append(
            f"only {frauds} test frauds are too few to judge it (gate.min_frauds is {settings.min_frauds})"
        )
        return reasons, []
    values = measure(evidence.output, truth, criteria)
    if not values["recall"] > 0:
        reasons.append("it catches no fraud of the test part")
    if not 0 < values["cost_saved"] <= 1:
        reasons.append(
            f"its decisions save {values['cost_saved']:.3g} of the amount at risk, not more than 0"
        )
    ranked, note = _judge_ranking(evidence, criteria, settings, seed)
    return [*reasons, *ranked, *_judge_calibration(evidence, settings)], [f"{note} on {frauds} frauds"]


def _judge_ranking(
    evidence: Evidence, criteria: Criteria, settings: GateSettings, seed: int
) -> tuple[list[str], str]:
    """Return why the challenger ranks too badly to pass, and how it does beside logistic regression."""
    truth, reasons = evidence.truth, []
    ranking = evaluate(
        {"pair": evidence.output},
        truth,
        criteria,
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=seed,
    )["pair"]["average_precision"]
    chance = float(np.average(truth.label, weights=truth.weight))
    if not (ranking.low - chance) / (1 - chance) > settings.min_skill:
        reasons.append(
            f"average precision {ranking.value:.4f} [{ranking.low:.4f}, {ranking.high:.4f}] shows too little "
            f"skill: without any it is the prevalence, {chance:.4f}"
        )
    baseline = ModelOutput(evidence.baseline, evidence.output.alarm)
    outputs = {"champion": baseline, "challenger": evidence.output}
    # Only one end is asked for: all that may be by chance stands on that side.
    tail = 1 - settings.confidence
    gain = _difference(outputs, "average_precision", truth, criteria, settings, seed, tail)
    if not gain.low > -settings.max_loss_to_baseline:
        reasons.append(f"average precision may be below that of logistic regression ({_signed(gain)})")
    return reasons, f"average precision {_signed(gain)} against logistic regression"


def _judge_calibration(evidence: Evidence, settings: GateSettings) -> list[str]:
    found = check_calibration(
        evidence.output.score,
        evidence.truth,
        confidence=settings.calibration_confidence,
        frauds_fitted=evidence.frauds_fitted,
    )
    factor, reasons = settings.calibration_tolerance, []
    if not found.ratio.may_lie_within(factor):
        reasons.append(
            f"its probabilities promise {found.expected:.1f} frauds where {found.seen:.0f} were seen, "
            f"more than a factor of {factor:g} apart beyond what chance explains"
        )
    if not found.slope.may_lie_within(factor):
        reasons.append(
            f"its probabilities are {_extremity(found.slope)}: the labels' log-odds change by "
            f"{found.slope.value:.2f} [{found.slope.low:.2f}, {found.slope.high:.2f}] where its own do by 1"
        )
    limit = settings.max_calibration_error
    if limit is not None and not evidence.calibration_error <= limit:
        reasons.append(f"calibration error {evidence.calibration_error:.4f} is above {limit:g}")
    return reasons


def _extremity(slope: Interval) -> str:
    if np.isnan(slope.value):
        return "the same for every row"
    return "too extreme" if slope.value < 1 else "too cautious"


def _difference(
    outputs: Mapping[str, ModelOutput],
    metric: str,
    truth: GroundTruth,
    criteria: Criteria,
    settings: GateSettings,
    seed: int,
    tail: float,
) -> Estimate:
    """Return challenger minus champion; of the paired resamples `tail` lie beyond each end."""
    drawn = resampled(outputs, truth, criteria, resamples=settings.resamples, seed=seed)
    value = {name: measure(output, truth, criteria)[metric] for name, output in outputs.items()}
    low, high = np.quantile(drawn["challenger"][metric] - drawn["champion"][metric], [tail, 1 - tail])
    return Estimate(value["challenger"] - value["champion"], float(low), float(high))


def _compare(differences: Mapping[str, Estimate], settings: GateSettings) -> list[str]:
    allowed = {
        "average_precision": settings.max_loss_average_precision,
        "cost_saved": settings.max_loss_cost_saved,
    }
    return [
        f"{_words(metric)} is {-difference.value:.3f} below the champion's, {allowed[metric]:g} is allowed"
        for metric, difference in differences.items()
        if not difference.value >= -allowed[metric]  # what is not a number is not enough
    ]


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _signed(figure: Estimate) -> str:
    return f"{figure.value:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"
