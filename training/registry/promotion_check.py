"""The gate's result for a release: on which rows it is judged."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from training.console import ProgressConsole
from training.data.labelled import LabelledRows, labelled_rows
from training.data.row_keys import TransactionKeys, row_keys
from training.data.source import read_data
from training.data.split import Split, split_as
from training.data.transactions import Transactions
from training.errors import DataError, LostFilesError
from training.evaluation.baseline import baseline_scores
from training.evaluation.gate import Evidence, GateResult, Opponent, evaluate_gate
from training.evaluation.metrics import ModelOutput, metric_criteria
from training.registry.gate_record import AGAINST_TAG, GATE_TAG, NO_CHAMPION, NOT_RUN
from training.registry.releases import Registry, Release
from training.scoring.latency import measure_latency
from training.scoring.scorer import ReleaseScorer
from training.settings.load import Settings

if TYPE_CHECKING:
    from training.models.training import TrainingResult

# Keys of the rows a release was fitted on: a few bits of each, so no row can be had back from them.
FITTED_KEYS = "fitted_keys.npz"
# What releases of the first version carry: keys of the exact bits of their rows.
FITTED_ROWS = "fitted_rows.npy"


@dataclass(frozen=True, eq=False)
class Challenger:
    """A release with what the gate asks about it."""

    release: Release
    data: Transactions
    split: Split
    settings: Settings
    test: LabelledRows
    output: ModelOutput
    calibration_error: float
    latency_ms: float

    def evidence(self) -> Evidence:
        """Return what the gate judges."""
        label = self.data.required_label
        train = labelled_rows(self.data, self.split.train)
        return Evidence(
            self.output,
            self.test.truth,
            baseline_scores(train, self.test.features, self.settings.seed),
            self.calibration_error,
            int(label[self.split.validation].sum()),
            self.latency_ms,
        )


def fitted_keys(training: TrainingResult) -> TransactionKeys:
    """Return the keys of all rows that fitted a training or chose its settings."""
    split = training.split
    parts = [split.train, split.validation, *([split.test] if training.settings.refit_newest else [])]
    return TransactionKeys.of(training.data, np.concatenate(parts))


def challenger_of_training(
    release: Release, training: TrainingResult, latency: Mapping[str, Mapping[str, float]]
) -> Challenger:
    """Return what the gate asks about a release, from the training that has just made it."""
    return Challenger(
        release,
        training.data,
        training.split,
        training.settings,
        training.test,
        training.outputs["pair"],
        training.figures["pair"]["calibration_error"].value,
        median_latency(latency),
    )


def challenger_of_registry(
    registry: Registry, release: Release, settings: Settings, console: ProgressConsole
) -> Challenger:
    """Return what the gate asks about a release of long ago, from its files and the data it names.

    Raises
    ------
    DataError
        If its settings cannot be read any more, or its data are others by now.
    UsageError
        If its data are gone.
    """
    if "recalibrated_from" in release.tags:
        raise DataError(f"release {release.number} was recalibrated: `recalibrate` again judges anew")
    recorded = _recorded_settings(registry, release, settings)
    if recorded.refit_newest:
        raise DataError(
            f"the models of release {release.number} were fitted on its test part too, after it was judged"
        )
    data = read_data(recorded, console)
    if data.fingerprint != release.fingerprint:
        raise DataError(f"{data.name} does not hold the transactions of release {release.number} any more")
    split = split_as(release.tags["split"], data, recorded)
    test = labelled_rows(data, split.test)
    with tempfile.TemporaryDirectory() as folder:
        files = registry.fetch(release, Path(folder))
        scorer = ReleaseScorer(files, threads=settings.threads)
        latency = measure_latency(ReleaseScorer(files, threads=1), test.features)
    scored = scorer.score(test.features)
    return Challenger(
        release,
        data,
        split,
        recorded,
        test,
        scored.output(),
        float(scorer.document["metrics"]["pair.calibration_error"]["value"]),
        median_latency(latency),
    )


def _recorded_settings(registry: Registry, release: Release, settings: Settings) -> Settings:
    """Return the settings a release was trained with, but for the gate, which is the present one."""
    try:
        recorded = Settings.model_validate_json(registry.run_text(release, "settings.json"))
    except ValidationError as error:
        raise DataError(f"the settings of release {release.number} are of another version") from error
    return recorded.model_copy(update={"gate": settings.gate})


def median_latency(latency: Mapping[str, Mapping[str, float]]) -> float:
    """Return the median milliseconds of one transaction through both models."""
    return sum(times["latency_ms_p50_rows_1"] for times in latency.values())


def run_gate(registry: Registry, challenger: Challenger, champion: Release | None) -> GateResult:
    """Judge a challenger, against the champion where there is one, and record the result."""
    opponent, lost = None, None
    if champion is not None:
        try:
            opponent = _opponent(registry, challenger, champion)
        except LostFilesError as error:  # it cannot be served or scored either
            lost = str(error)
    result = evaluate_gate(
        challenger.evidence(),
        opponent,
        criteria=metric_criteria(challenger.settings),
        settings=challenger.settings.gate,
        seed=challenger.settings.seed,
    )
    if lost is not None:
        result = replace(result, notes=(*result.notes, lost))
    _record(registry, challenger.release, champion, result)
    return result


def _opponent(registry: Registry, challenger: Challenger, champion: Release) -> Opponent:
    with tempfile.TemporaryDirectory() as folder:
        files = registry.fetch(champion, Path(folder))
        scorer = ReleaseScorer(files, threads=challenger.settings.threads)
        output = scorer.score(challenger.test.features).output()
        unseen = unseen_rows(challenger, champion, files)
    if unseen is None:
        return Opponent(output, np.ones(len(challenger.test.features), bool), is_unseen_known=False)
    return Opponent(output, unseen)


def unseen_rows(challenger: Challenger, champion: Release, files: Path) -> NDArray[np.bool_] | None:
    """Return which test rows the champion was not fitted on; None where that cannot be known.

    A release says which rows it was fitted on, also those of other files; of one that is older than that
    record it is known only where both were split from the same data.
    """
    test = challenger.split.test
    if (files / FITTED_KEYS).is_file():
        known = TransactionKeys.load(files / FITTED_KEYS)
        return ~TransactionKeys.of(challenger.data, test).found_in(known)
    if (files / FITTED_ROWS).is_file():
        return ~np.isin(row_keys(challenger.data.features[test]), np.load(files / FITTED_ROWS))
    if champion.fingerprint != challenger.data.fingerprint or "split" not in champion.tags:
        return None
    held_out = split_as(champion.tags["split"], challenger.data, challenger.settings).test
    return np.isin(test, held_out)


def _record(registry: Registry, release: Release, champion: Release | None, result: GateResult) -> None:
    # If interrupted, a result is never stored next to a champion it was not compared with.
    registry.set_tag(release, GATE_TAG, NOT_RUN)
    registry.set_tag(release, AGAINST_TAG, champion.number if champion else NO_CHAMPION)
    registry.set_tag(release, GATE_TAG, result.sentence())
