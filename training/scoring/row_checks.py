"""Which rows of a file can be scored, and why the others cannot: a bad row costs itself, not its file.

The checks and their words are those of `training.data`, which refuses a whole file at its first bad row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.csv_rows import read_csv_rows
from training.data.files import MISSING, check_columns, check_path, read_raw_batches
from training.data.transactions import FEATURES, NOT_FINITE, TRANSACTION_ID, find_outside, finite_as_float32
from training.errors import BadFileError
from training.settings.sections import LimitSettings


@dataclass(frozen=True)
class RefusedRow:
    """A row that is not scored; no value of it is repeated, only its identifier."""

    row: int  # 1-based data row of the file
    transaction_id: str | None
    reason: str


@dataclass(frozen=True, eq=False)
class CheckedRows:
    """Consecutive rows of a file: those that can be scored, and apart from them those that cannot."""

    row: NDArray[np.int64]  # [n] 1-based data rows of the file
    features: NDArray[np.float32] = field(repr=False)  # [n, 30]
    transaction_id: pa.Array | None = field(repr=False)  # [n]
    refused: tuple[RefusedRow, ...] = field(repr=False)


def read_checked_rows(
    path: Path,
    rows: int,
    limits: LimitSettings,
    row_groups: Sequence[int] | None = None,
    first_row: int = 0,
) -> Iterator[CheckedRows]:
    """Yield a file's rows in order, at most `rows` or a block of a CSV at a time, in constant memory.

    Parameters
    ----------
    limits : LimitSettings
        What a feature may be.
    row_groups : sequence of int, optional
        Groups of a parquet file to read; all by default.
    first_row : int
        Rows of the file before the first of these groups.

    Raises
    ------
    NoSuchFileError
        If there is no such file, or its suffix is unknown.
    BadFileError
        If the file as a whole cannot be read: a column is missing, its header or a part of it is broken.
    """
    check_path(path)
    columns = check_columns(path, FEATURES, (TRANSACTION_ID,))
    texts, done = columns[len(FEATURES) :], first_row
    try:
        for batch in read_raw_batches(path, FEATURES, texts, rows, row_groups):
            yield _check(batch, np.arange(done, done + batch.num_rows) + 1, {}, {}, limits)
            done += batch.num_rows
    except pa.ArrowInvalid:
        for part in read_csv_rows(path, FEATURES, texts, done):
            yield _check(part.batch, part.number, part.cell_reasons, part.row_reasons, limits)
        return
    if done == first_row:
        raise BadFileError(f"{path}: has a header but no rows")


def _check(
    batch: pa.RecordBatch,
    number: NDArray[np.int64],
    cell_reasons: dict[int, str],
    row_reasons: dict[int, str],
    limits: LimitSettings,
) -> CheckedRows:
    ids = batch.column(TRANSACTION_ID) if TRANSACTION_ID in batch.schema.names else None
    reasons = cell_reasons | {
        i: reason for i, reason in _refusals(batch, number, limits).items() if i not in cell_reasons
    }
    good = np.ones(batch.num_rows, bool)
    good[list(reasons)] = False
    refused = [RefusedRow(row, None, reason) for row, reason in row_reasons.items()]
    for i, reason in reasons.items():
        refused.append(RefusedRow(int(number[i]), None if ids is None else ids[i].as_py(), reason))
    return CheckedRows(
        number[good],
        _matrix(batch)[good],
        None if ids is None else ids.filter(pa.array(good)),
        tuple(sorted(refused, key=lambda row: row.row)),
    )


def _refusals(batch: pa.RecordBatch, number: NDArray[np.int64], limits: LimitSettings) -> dict[int, str]:
    """Return why rows cannot be scored, by index; a missing value comes before one that is not finite."""
    reasons: dict[int, str] = {}
    for name in (name for name in batch.schema.names if batch.column(name).null_count):
        for i in np.flatnonzero(batch.column(name).is_null().to_numpy(zero_copy_only=False)):
            reasons.setdefault(int(i), f"column {name}, row {number[i]}: {MISSING}")
    for name in FEATURES:
        values = batch.column(name).to_numpy(zero_copy_only=False)  # NaN where it is missing
        for i in np.flatnonzero(~finite_as_float32(values)):
            reasons.setdefault(int(i), f"column {name}, row {number[i]}: {NOT_FINITE}")
        outside, why = find_outside(name, values, limits)
        for i in np.flatnonzero(outside):
            reasons.setdefault(int(i), f"column {name}, row {number[i]}: {why}")
    return reasons


def _matrix(batch: pa.RecordBatch) -> NDArray[np.float32]:
    matrix = np.empty((batch.num_rows, len(FEATURES)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are refused
        for j, name in enumerate(FEATURES):
            # -0.0 becomes 0.0, as in every other reader.
            np.add(
                batch.column(name).to_numpy(zero_copy_only=False), 0.0, out=matrix[:, j], casting="same_kind"
            )
    return matrix
