"""Reads labels from CSV or parquet, row by row; a row that is no label is kept with its reason."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from streaming.errors import DataError
from streaming.labels.records import Label, LabelRejection, check_label
from streaming.replay.csv_tables import is_csv, is_text, open_csv_table
from streaming.replay.data_files import check_data_path
from streaming.replay.parquet_tables import column_names, read_columns

IDENTITY = "transaction_id"
#: Columns that say what is true; a data file has the first.
VERDICTS = ("Class", "is_fraud")
COLUMNS = (IDENTITY, *VERDICTS, "labelled_at_ms", "origin")

_TRUTH = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}

Cells = Mapping[str, Any]


class LabelRow(msgspec.Struct, frozen=True):
    """One row of a file.

    Attributes
    ----------
    number : int
        Row of the file, from 1, its header not counted.
    cells : mapping
        The columns about labels as they were read.
    label : Label or LabelRejection
    """

    number: int
    cells: Cells
    label: Label | LabelRejection


def read_label_rows(
    path: Path, origin: str, clock_ms: Callable[[], int], limit: int | None = None
) -> Iterator[LabelRow]:
    """Yield each row of a file, in its order.

    Parameters
    ----------
    path : Path
        CSV or parquet as `replay` reads it. ``Class`` or ``is_fraud`` is needed: 1, true, 0, false, or
        nothing, which withdraws. Without ``transaction_id`` a row has its number, as `replay` names it.
    origin : str
        For rows that do not say.
    clock_ms : callable
        Milliseconds since 1970: a row that does not say when it was labelled was labelled when it is read.
    limit : int, optional
        Largest number of rows to read.

    Raises
    ------
    DataError
        If the file is missing, cannot be read, or has no column that says what was fraud.
    """
    check_data_path(path)
    rows = _csv_rows(path) if is_csv(path) else _parquet_rows(path)
    for number, cells in enumerate(itertools.islice(rows, limit), 1):
        yield LabelRow(number, cells, _read_row(number, cells, origin, clock_ms()))


def _read_row(number: int, cells: Cells, origin: str, now_ms: int) -> Label | LabelRejection:
    verdict = cells["is_fraud"] if "is_fraud" in cells else cells["Class"]
    found: dict[str, Any] = {
        "transaction_id": str(number) if _is_empty(cells.get(IDENTITY)) else str(cells[IDENTITY]),
        "is_fraud": None if _is_empty(verdict) else _TRUTH.get(str(verdict).strip().lower(), verdict),
        "labelled_at_ms": now_ms
        if _is_empty(cells.get("labelled_at_ms"))
        else _whole(cells["labelled_at_ms"]),
        "origin": origin if _is_empty(cells.get("origin")) else cells["origin"],
    }
    return check_label(found, now_ms)


def _is_empty(cell: object) -> bool:
    # pandas writes a missing number of a column of floats as NaN.
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _whole(cell: object) -> object:
    """Return a whole number where the cell is one in whatever form, else the cell."""
    try:
        number = float(cell) if isinstance(cell, str | int | float) else math.nan
    except ValueError:
        return cell
    return int(number) if number.is_integer() else cell


def _csv_rows(path: Path) -> Iterator[Cells]:
    with open_csv_table(path) as table:
        indices = {name: table.names.index(name) for name in _check_columns(path, table.names)}
        for number, cells in enumerate(table.rows, 1):
            # A short row has nothing in its last columns.
            found = {name: cells[at] if at < len(cells) else None for name, at in indices.items()}
            if not all(is_text(text) for text in found.values() if text):
                raise DataError(f"{path}, row {number}: a cell is not text in UTF-8.")
            yield found


def _parquet_rows(path: Path) -> Iterator[Cells]:
    names = _check_columns(path, column_names(path))
    texts = [name for name in names if name == IDENTITY]
    for columns in read_columns(path, (), texts, [name for name in names if name != IDENTITY]):
        yield from (dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True))


def _check_columns(path: Path, names: Any) -> list[str]:  # noqa: ANN401  # a header of either library
    found = [name for name in names if name in COLUMNS]
    if not set(VERDICTS) & set(found):
        raise DataError(f"{path} lacks a column {' or '.join(VERDICTS)}, which says what was fraud.")
    repeated = {name for name in found if found.count(name) > 1}
    if repeated:
        raise DataError(f"{path} has a column twice: {', '.join(sorted(repeated))}.")
    return found
