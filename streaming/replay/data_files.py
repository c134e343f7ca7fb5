"""Reads transactions from CSV or parquet and writes each as the JSON that ``/classify`` takes."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from streaming.errors import DataError

FEATURES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
IDENTITY = "transaction_id"
NO_NUMBER = "a cell is missing or is no number."
PARQUET_ROWS = 8192  # read at a time: memory stays flat whatever the file's size

Transaction = tuple[bytes, bytes]
"""Key (the transaction's id) and value (its JSON object)."""


def read_transactions(path: Path) -> Iterator[Transaction]:
    """Yield key and value of each row, in the order of the file.

    Parameters
    ----------
    path : Path
        ``.parquet``, or CSV whatever its suffix; the 30 features in any order, further columns
        ignored: neither label nor weight leaves this process. Rows without ``transaction_id``
        get their row number, from 1.

    Raises
    ------
    DataError
        If the file is missing, lacks a column or holds something that is no number.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist: --data wants a CSV or parquet file, or `simulator`.")
    rows = _parquet_rows(path) if path.suffix.lower() in (".parquet", ".pq") else _csv_rows(path)
    encode = msgspec.json.Encoder().encode
    for number, (identity, values) in enumerate(rows, 1):
        if not all(map(math.isfinite, values)):
            raise DataError(f"{path}, row {number}: {NO_NUMBER}")
        name = str(number) if identity is None else identity
        yield name.encode(), encode({IDENTITY: name, **dict(zip(FEATURES, values, strict=True))})


Row = tuple[str | None, Sequence[float]]


def _csv_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            pick = _picker(path, [name.strip() for name in next(reader, [])])
            for cells in reader:
                if cells:
                    yield _csv_row(path, reader.line_num, pick, cells)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error


def _csv_row(
    path: Path, line: int, pick: Callable[[Sequence[Any]], tuple[Any, list[Any]]], cells: list[str]
) -> Row:
    try:
        identity, texts = pick(cells)
        return identity, [float(text) for text in texts]
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}, line {line}: {NO_NUMBER}") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet  # the bridge does not need it
    except ImportError as error:
        raise DataError(
            "Reading parquet needs pyarrow: install the group `parquet`, or give a CSV file."
        ) from error
    try:
        file = parquet.ParquetFile(path)
        names = [name for name in (IDENTITY, *FEATURES) if name in file.schema_arrow.names]
        pick = _picker(path, names)
        for part in file.iter_batches(PARQUET_ROWS, columns=names):
            for cells in zip(*(part.column(name).to_pylist() for name in names), strict=True):
                identity, values = pick(cells)
                yield _identity(path, identity), [_number(value) for value in values]
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error


def _identity(path: Path, value: object) -> str | None:
    """Return an id as text: columns of bytes hold text, or are refused."""
    if not isinstance(value, bytes):
        return None if value is None else str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise DataError(f"{path}: column {IDENTITY} holds bytes that are not text in UTF-8.") from None


def _number(value: object) -> float:
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return float(value) if is_number else math.nan  # type: ignore[arg-type]  # checked


def _picker(path: Path, names: Sequence[str]) -> Callable[[Sequence[Any]], tuple[Any, list[Any]]]:
    missing = [name for name in FEATURES if name not in names]
    if missing:
        raise DataError(
            f"{path} lacks {'the column' if len(missing) == 1 else 'columns'} {', '.join(missing)}."
        )
    repeated = {name for name in (*FEATURES, IDENTITY) if list(names).count(name) > 1}
    if repeated:
        raise DataError(f"{path} has a column twice: {', '.join(sorted(repeated))}.")
    places = [names.index(name) for name in FEATURES]
    where = names.index(IDENTITY) if IDENTITY in names else None
    return lambda cells: (None if where is None else cells[where], [cells[place] for place in places])
