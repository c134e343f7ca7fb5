"""What a worker does with one partition: read, check, score, write; on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from training.errors import BadFileError, NoSuchFileError
from training.scoring.partitions import Partition
from training.scoring.row_checks import CheckedRows, RefusedRow, read_checked_rows
from training.scoring.score_folder import ScoreFolder
from training.scoring.scorer import CHUNK_ROWS, SCHEMA, ReleaseScorer, to_batch
from training.scoring.storage import Storage
from training.settings.sections import LimitSettings

NO_ROWS = pa.RecordBatch.from_pylist([], SCHEMA)


@dataclass(frozen=True)
class ScoreJob:
    """What every task of a job is told."""

    data: Storage
    output: ScoreFolder
    is_folder: bool
    limits: LimitSettings


@dataclass(frozen=True)
class PartitionResult:
    """What became of a partition; `problem` says why its file could not be scored."""

    partition: Partition
    rows: int = 0
    refused: int = 0
    problem: str | None = None


def score_partition(scorer: ReleaseScorer, partition: Partition, job: ScoreJob) -> PartitionResult:
    """Score a partition.

    What is wrong with its file is returned, not raised: to try again would not mend it. All else, such as a
    full disk or a store that does not answer, is raised, and the engine decides how often to try again.
    """
    data = job.data
    path = data.join(partition.source) if job.is_folder else data.path
    prefix = f"{partition.source}:" if job.is_folder else ""
    with data.local_copy(path) as file:
        try:
            parts = read_checked_rows(file, CHUNK_ROWS, job.limits, partition.row_groups, partition.first_row)
            done = job.output.write(partition, _score(scorer, parts, prefix))
        except (BadFileError, NoSuchFileError) as error:
            shown = path if data.is_local else f"{data.address}{f'/{partition.source}' * job.is_folder}"
            return PartitionResult(partition, problem=str(error).replace(str(file), shown))
    return PartitionResult(partition, done.rows, done.refused)


def _score(
    scorer: ReleaseScorer, parts: Iterator[CheckedRows], prefix: str
) -> Iterator[tuple[pa.RecordBatch, list[RefusedRow]]]:
    for part in parts:
        ids = part.transaction_id
        if ids is None:
            ids = pa.array([f"{prefix}{row}" for row in part.row.tolist()], pa.string())
        # A model is never asked about no rows.
        scored = to_batch(ids, scorer.score(part.features)) if len(ids) else NO_ROWS
        yield scored, list(part.refused)
