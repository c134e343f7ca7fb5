"""What is scored apart from everything else: a file, or some row groups of a large parquet file.

Nothing here knows Spark: a partition is planned, scored and recorded the same way wherever it runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from training.data.csv_format import CSV_SUFFIXES
from training.data.parquet_tables import PARQUET_SUFFIXES
from training.errors import NoSuchFileError
from training.scoring.storage import Storage, translate_storage_errors

SUFFIXES = (*CSV_SUFFIXES, *PARQUET_SUFFIXES)
# What opening one more file is worth, as in Spark's own readers (spark.sql.files.openCostInBytes).
OPEN_COST_BYTES = 4 << 20


@dataclass(frozen=True)
class Partition:
    """Rows of one input file that are scored together, by one task on one thread."""

    source: str  # file, relative to the input folder
    size: int
    modified_ns: int
    row_groups: tuple[int, ...] | None = None  # of a large parquet file; None: the whole file
    first_row: int = 0  # rows of the file before the first of them

    def key(self, release: str, suffix: str) -> str:
        """Return 16 hex digits that change with the content, the release and the kind of output."""
        parts = json.dumps([release, suffix, asdict(self)])
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """All partitions of an input, in the order of its files."""

    partitions: tuple[Partition, ...]
    is_folder: bool
    ignored: int  # files of the folder whose suffix is of no table


def plan_partitions(data: Storage, partition_bytes: int) -> Plan:
    """List the input's files and cut large parquet files on local or mounted disks into row groups.

    Names that start with ``_`` or ``.`` are left out, as Spark does. A file elsewhere is copied by the task
    that scores it and so stays whole, as does a CSV.

    Raises
    ------
    NoSuchFileError
        If there is nothing to score.
    """
    with translate_storage_errors(data.address):
        found = data.filesystem.get_file_info(data.path)
        if found.type == fs.FileType.NotFound:
            raise NoSuchFileError(f"{data.address}: there is no such file or folder")
        if found.type == fs.FileType.File:
            return Plan(tuple(_cut(data, found, partition_bytes)), False, 0)
        infos = data.filesystem.get_file_info(fs.FileSelector(data.path, recursive=True))
    files = [info for info in infos if info.type == fs.FileType.File and not _is_hidden(data, info.path)]
    known = [info for info in files if info.path.lower().endswith(SUFFIXES)]
    if not known:
        raise NoSuchFileError(
            f"{data.address}: the folder holds no file with the suffix {' or '.join(SUFFIXES)}"
        )
    partitions = [
        part
        for info in sorted(known, key=lambda info: info.path)
        for part in _cut(data, info, partition_bytes)
    ]
    return Plan(tuple(partitions), True, len(files) - len(known))


def pack_partitions(
    partitions: Sequence[Partition], partition_bytes: int, cores: int
) -> list[list[Partition]]:
    """Put small partitions together to tasks of at most `partition_bytes`, but leave no core without one.

    The rule is that of Spark's file readers (``FilePartition.maxSplitBytes``).
    """
    costs = [OPEN_COST_BYTES + (0 if part.row_groups else part.size) for part in partitions]
    most = min(partition_bytes, max(OPEN_COST_BYTES, sum(costs) // cores))
    tasks: list[list[Partition]] = []
    filled = most
    for part, cost in zip(partitions, costs, strict=True):
        if filled + cost > most or part.row_groups:
            tasks.append([])
            filled = 0
        tasks[-1].append(part)
        filled += most if part.row_groups else cost
    return tasks


def _is_hidden(data: Storage, path: str) -> bool:
    return any(part.startswith(("_", ".")) for part in PurePosixPath(data.relative(path)).parts)


def _cut(data: Storage, info: fs.FileInfo, partition_bytes: int) -> Iterator[Partition]:
    whole = Partition(data.relative(info.path), info.size, info.mtime_ns or 0)
    is_parquet = info.path.lower().endswith(PARQUET_SUFFIXES)
    if not (is_parquet and data.is_local and info.size > partition_bytes):
        yield whole
        return
    try:
        metadata = pq.read_metadata(info.path)
    except (pa.ArrowException, OSError):  # the task that reads it says what is wrong
        yield whole
        return
    groups: list[int] = []
    first_row = size = rows = 0
    for i in range(metadata.num_row_groups):
        groups.append(i)
        size += sum(
            metadata.row_group(i).column(j).total_compressed_size for j in range(metadata.num_columns)
        )
        rows += metadata.row_group(i).num_rows
        if size >= partition_bytes or i == metadata.num_row_groups - 1:
            yield Partition(whole.source, whole.size, whole.modified_ns, tuple(groups), first_row)
            first_row, size, groups, rows = first_row + rows, 0, [], 0
