"""Reads transactions from CSV or parquet and writes each as the JSON that ``/classify`` takes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from streaming.errors import DataError
from streaming.replay.csv_tables import CSV_SUFFIXES, is_csv, is_text, open_csv_table
from streaming.replay.parquet_tables import PARQUET_SUFFIXES, column_names, read_columns

FEATURES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
IDENTITY = "transaction_id"
#: The models score float32: what overflows there is no number to them, and NaN compares with nothing.
LARGEST = 3.4028234663852886e38

Transaction = tuple[bytes, bytes]
"""Key (the transaction's id) and value (its JSON object)."""


def read_transactions(path: Path) -> Iterator[Transaction]:
    """Yield key and value of each row, in the order of the file.

    Parameters
    ----------
    path : Path
        CSV or parquet as `training` reads it: ``.csv``, ``.tsv``, either with ``.gz``, ``.zip``,
        ``.parquet``, or a folder of parquet files; the 30 features in any order, further columns ignored:
        neither label nor weight leaves this process. Rows without ``transaction_id`` get their row number,
        from 1.

    Raises
    ------
    DataError
        If the file is missing, lacks a column or holds something that is no number.
    """
    check_data_path(path)
    rows = _csv_rows(path) if is_csv(path) else _parquet_rows(path)
    encode = msgspec.json.Encoder().encode
    number = 0
    for number, (identity, values) in enumerate(rows, 1):
        for name, value in zip(FEATURES, values, strict=True):
            if not -LARGEST <= value <= LARGEST:
                raise _bad_cell(path, number, name)
        name = str(number) if identity is None else identity
        yield name.encode(), encode({IDENTITY: name, **dict(zip(FEATURES, values, strict=True))})
    if not number:
        raise DataError(f"{path} has no rows.")


def check_data_path(path: Path) -> None:
    """Raise DataError unless there is a file or folder whose name says what it holds."""
    if not path.exists():
        raise DataError(f"{path} does not exist: --data wants a CSV or parquet file.")
    if not is_csv(path) and not path.is_dir() and path.suffix.lower() not in PARQUET_SUFFIXES:
        raise DataError(f"{path}: the suffix must be {', '.join((*CSV_SUFFIXES, *PARQUET_SUFFIXES))}.")


Row = tuple[str | None, Sequence[float]]


def _csv_rows(path: Path) -> Iterator[Row]:
    with open_csv_table(path) as table:
        _check_columns(path, table.names)
        indices = [table.names.index(name) for name in FEATURES]
        where = table.names.index(IDENTITY) if IDENTITY in table.names else None
        width = len(table.names)
        for number, cells in enumerate(table.rows, 1):
            if len(cells) != width:
                raise DataError(
                    f"{path}, row {number}: has {len(cells)} fields where the header has {width}."
                )
            if where is not None and not is_text(cells[where]):
                raise DataError(f"{path}, row {number}: {IDENTITY} is missing or is not text in UTF-8.")
            values = [table.number(cells[index]) for index in indices]
            yield None if where is None else cells[where], values


def _parquet_rows(path: Path) -> Iterator[Row]:
    names = column_names(path)
    _check_columns(path, names)
    texts = [IDENTITY] if IDENTITY in names else []
    first_row = 0
    for columns in read_columns(path, FEATURES, texts):
        rows = len(columns["Time"])
        for name, cells in columns.items():
            if None in cells:
                row = first_row + cells.index(None) + 1
                raise _bad_cell(path, row, name)
        identities = columns[IDENTITY] if texts else [None] * rows
        yield from zip(identities, zip(*(columns[name] for name in FEATURES), strict=True), strict=True)
        first_row += rows


def _bad_cell(path: Path, row: int, column: str) -> DataError:
    return DataError(f"{path}, row {row}: a cell is missing or is no number: column {column}.")


def _check_columns(path: Path, names: Sequence[str]) -> None:
    counts = Counter(names)
    missing = [name for name in FEATURES if not counts[name]]
    if missing:
        raise DataError(
            f"{path} lacks {'the column' if len(missing) == 1 else 'columns'} {', '.join(missing)}."
        )
    repeated = sorted(name for name in (*FEATURES, IDENTITY) if counts[name] > 1)
    if repeated:
        raise DataError(f"{path} has a column twice: {', '.join(repeated)}.")
