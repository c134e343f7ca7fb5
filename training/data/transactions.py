"""Transactions: load them, check them, and tell one data set from another.

A data file has the 31 columns of the ULB set in any order (``Time`` in seconds, ``V1`` to ``V28``,
``Amount``, ``Class`` with 1 for fraud) and may have ``transaction_id`` (text) and ``sample_weight``
(> 0, how many transactions the row stands for). Further columns are ignored.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from training.data.files import check_columns, check_path, count_rows, read_batches
from training.data.parquet_tables import LABEL
from training.errors import BadFileError, DataError
from training.settings.sections import LimitSettings

__all__ = [
    "FEATURES",
    "Chunk",
    "Transactions",
    "count_rows",
    "from_frame",
    "load_transactions",
    "read_chunks",
]

FEATURES: tuple[str, ...] = ("Time", *(f"V{i}" for i in range(1, 29)), "Amount")
TRANSACTION_ID = "transaction_id"
SAMPLE_WEIGHT = "sample_weight"
_BATCH_ROWS = 65_536
# The models score float32: what overflows there is not a number to them.
_LARGEST = float(np.finfo(np.float32).max)
NOT_FINITE = "the value is not finite (NaN, infinite, or too large for float32)"

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Transactions:
    """Checked transactions in file order.

    Attributes
    ----------
    name : str
        What data this is, for summaries and plots.
    features : float64 array of shape (n, 30)
        Raw features in the order of ``FEATURES``, finite as float32.
    label : int8 array of shape (n,), or None
        1 for fraud; None when the data has no use for labels.
    sample_weight : float64 array of shape (n,)
        How many transactions of the real stream a row stands for; > 0, ones when the file has none.
    transaction_id : object array of shape (n,), or None
        Text identifiers, when the file has them.
    fingerprint : str
        64 hex digits over the content; equal content in CSV and parquet has the same fingerprint.
    """

    name: str
    # Kept out of the representation, so that no traceback or log line shows a transaction.
    features: FloatArray = field(repr=False)
    label: NDArray[np.int8] | None = field(repr=False)
    sample_weight: FloatArray = field(repr=False)
    transaction_id: NDArray[np.object_] | None = field(repr=False)
    fingerprint: str

    def __len__(self) -> int:
        return len(self.features)

    @property
    def time(self) -> FloatArray:
        """Seconds since the first transaction of the set."""
        return self.features[:, FEATURES.index("Time")]

    @property
    def amount(self) -> FloatArray:
        """Amount in account currency."""
        return self.features[:, FEATURES.index("Amount")]

    @property
    def required_label(self) -> NDArray[np.int8]:
        """The label; raises DataError where there is none."""
        if self.label is None:
            raise DataError(f"{self.name}: has no column {LABEL}, which says what was fraud")
        return self.label

    @property
    def frauds(self) -> int:
        """Number of rows labelled fraud."""
        return int(self.required_label.sum())

    @property
    def prevalence(self) -> float:
        """Share of fraud in the stream the weighted rows stand for, in [0, 1]."""
        return float(np.average(self.required_label, weights=self.sample_weight))

    def to_frame(self, rows: IndexArray | None = None) -> pd.DataFrame:
        """Return the rows as a data file would hold them, with `transaction_id` (row number when none)."""
        rows = np.arange(len(self)) if rows is None else rows
        frame = pd.DataFrame(self.features[rows], columns=list(FEATURES))
        if self.label is not None:
            frame[LABEL] = self.label[rows]
        ids = rows + 1 if self.transaction_id is None else self.transaction_id[rows]
        frame[TRANSACTION_ID] = [str(item) for item in ids]
        frame[SAMPLE_WEIGHT] = self.sample_weight[rows]
        return frame


@dataclass(frozen=True, eq=False)
class Chunk:
    """A run of consecutive rows of a file that is too big to hold: for scoring, so without labels."""

    first_row: int  # 0-based row of the file
    features: FloatArray = field(repr=False)  # [n, 30]
    transaction_id: NDArray[np.object_] | None = field(repr=False)


def load_transactions(
    path: str | Path,
    *,
    labelled: bool = True,
    name: str | None = None,
    limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
) -> Transactions:
    """Read and check a CSV or parquet file.

    Parameters
    ----------
    path : str or Path
        File with the suffix .csv or .parquet.
    labelled : bool
        Whether ``Class`` is needed, holding both classes; otherwise it is ignored.
    name : str, optional
        What to call the data; the file's name by default.
    limits : LimitSettings
        What a feature may be.

    Raises
    ------
    NoSuchFileError
        If there is no such file, or its suffix is unknown.
    BadFileError
        If the content breaks the contract; names the column and the 1-based data row.
    """
    path = Path(path)
    check_path(path)
    columns = check_columns(
        path, (*FEATURES, LABEL) if labelled else FEATURES, (SAMPLE_WEIGHT, TRANSACTION_ID)
    )
    numbers = [column for column in columns if column != TRANSACTION_ID]
    batches = read_batches(path, numbers, columns[len(numbers) :], _BATCH_ROWS)
    table = pa.Table.from_batches(batches, _schema(columns))
    values = {column: table.column(column).to_numpy() for column in numbers}
    _check_values(str(path), values, limits=limits)
    return _transactions(name or path.name, values, _texts(table.schema.names, table))


def from_frame(
    frame: pd.DataFrame,
    name: str,
    limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
) -> Transactions:
    """Return the checked transactions of a data frame with the columns of a data file, `Class` optional."""
    missing = [column for column in FEATURES if column not in frame.columns]
    if missing:
        raise BadFileError(f"{name}: missing columns {', '.join(missing)}")
    numbers = [column for column in (*FEATURES, LABEL, SAMPLE_WEIGHT) if column in frame.columns]
    values = {column: frame[column].to_numpy(np.float64) for column in numbers}
    _check_values(name, values, limits=limits)
    ids = frame[TRANSACTION_ID].to_numpy(object) if TRANSACTION_ID in frame.columns else None
    return _transactions(name, values, ids)


def read_chunks(
    path: str | Path,
    rows: int = _BATCH_ROWS,
    limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
) -> Iterator[Chunk]:
    """Yield the features of a file in order, at most `rows` at a time, in constant memory.

    ``Class`` and ``sample_weight`` are ignored. Raises like ``load_transactions``, at the latest when the
    bad row is reached; a wrong header is noticed before the first chunk.
    """
    path = Path(path)
    check_path(path)
    columns = check_columns(path, FEATURES, (TRANSACTION_ID,))
    first_row = 0
    for batch in read_batches(path, FEATURES, columns[len(FEATURES) :], rows):
        values = {column: batch.column(column).to_numpy() for column in FEATURES}
        _check_values(str(path), values, first_row, limits)
        yield Chunk(first_row, _matrix(values), _texts(columns, batch))
        first_row += batch.num_rows
    if not first_row:
        raise BadFileError(f"{path}: has a header but no rows")


def _schema(columns: Sequence[str]) -> pa.Schema:
    kinds = [pa.string() if column == TRANSACTION_ID else pa.float64() for column in columns]
    return pa.schema(list(zip(columns, kinds, strict=True)))


def _texts(columns: Sequence[str], table: pa.Table | pa.RecordBatch) -> NDArray[np.object_] | None:
    if TRANSACTION_ID not in columns:
        return None
    texts: NDArray[np.object_] = table.column(TRANSACTION_ID).to_numpy(zero_copy_only=False)
    return texts


def _matrix(values: dict[str, FloatArray]) -> FloatArray:
    matrix = np.empty((len(values["Time"]), len(FEATURES)))
    for j, column in enumerate(FEATURES):
        # -0.0 becomes 0.0: equal rows must have equal bytes for fingerprint and repeats.
        np.add(values[column], 0.0, out=matrix[:, j])
    return matrix


def _transactions(
    name: str, values: dict[str, FloatArray], transaction_id: NDArray[np.object_] | None
) -> Transactions:
    features = _matrix(values)
    label = values[LABEL].astype(np.int8) if LABEL in values else None
    weight = values.get(SAMPLE_WEIGHT, np.ones(len(features)))
    print_ = _fingerprint(features, label, weight, transaction_id)
    return Transactions(name, features, label, weight, transaction_id, print_)


def _fingerprint(
    features: FloatArray,
    label: NDArray[np.int8] | None,
    weight: FloatArray,
    transaction_id: NDArray[np.object_] | None,
) -> str:
    digest = hashlib.sha256("\n".join(FEATURES).encode())
    digest.update(features.astype("<f8", copy=False).data)
    if label is not None:
        digest.update(label.data)
    digest.update(weight.astype("<f8").data)
    if transaction_id is not None:
        digest.update("\n".join(transaction_id).encode())
    return digest.hexdigest()


# --- checks


def feature_range(column: str, limits: LimitSettings) -> tuple[float, float]:
    """Return the smallest and the largest value a feature may have."""
    if column == "Time":
        return 0.0, limits.time_max_s
    if column == "Amount":
        return 0.0, limits.amount_max
    return -limits.component_max, limits.component_max


def _check_values(
    name: str,
    values: dict[str, FloatArray],
    first_row: int = 0,
    limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
) -> None:
    if not len(values["Time"]):
        raise BadFileError(f"{name}: has a header but no rows")
    for column, numbers in values.items():
        _refuse(name, column, ~finite_as_float32(numbers), NOT_FINITE, first_row)
    for column in FEATURES:
        bad, why = find_outside(column, values[column], limits)
        _refuse(name, column, bad, why, first_row)
    if SAMPLE_WEIGHT in values:
        _refuse(name, SAMPLE_WEIGHT, values[SAMPLE_WEIGHT] <= 0, "the value is not above 0", first_row)
    if LABEL in values:
        label = values[LABEL]
        _refuse(name, LABEL, (label != 0) & (label != 1), "the value is neither 0 nor 1", first_row)
        if label[0] == label.min() == label.max():
            raise BadFileError(
                f"{name}: column {LABEL} holds one class only, row 1 to {len(label)} are all {label[0]:.0f}"
            )


def find_outside(column: str, numbers: FloatArray, limits: LimitSettings) -> tuple[NDArray[np.bool_], str]:
    """Say which values a feature may not have, and why."""
    least, most = feature_range(column, limits)
    return (numbers < least) | (numbers > most), f"the value is outside {least:g} to {most:g}, see `limits`"


def finite_as_float32(numbers: FloatArray) -> NDArray[np.bool_]:
    """Say for each number whether the models can score it: NaN, infinities and what overflows cannot be."""
    return np.abs(numbers) <= _LARGEST


def _refuse(name: str, column: str, bad: NDArray[np.bool_], why: str, first_row: int) -> None:
    if bad.any():
        row = first_row + int(bad.argmax()) + 1
        more = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
        raise BadFileError(f"{name}: column {column}, row {row}{more}: {why}")
