"""A CSV with bad rows, read on past them: slower than `training.data.files`, which stops at the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from training.data.csv_format import open_csv_bytes, read_csv_format, with_decimal_points
from training.data.files import (
    BLANKS,
    CSV_BLOCK_BYTES,
    convert_options,
    converts,
    wrong_width,
)
from training.data.parquet_tables import NO_NUMBER, NO_TEXT
from training.errors import BadFileError


@dataclass(frozen=True, eq=False)
class CsvRows:
    """Consecutive rows of a CSV: a cell that its column cannot hold is null and has a reason."""

    batch: pa.RecordBatch = field(repr=False)
    number: NDArray[np.int64]  # [n] 1-based data rows of the file
    cell_reasons: dict[int, str]  # by index into the batch
    row_reasons: dict[int, str]  # rows with too few or too many fields, by their number; not in the batch


def read_csv_rows(path: Path, numbers: Sequence[str], texts: Sequence[str], after: int) -> Iterator[CsvRows]:
    """Yield the rows of a CSV that come after its row `after`.

    Raises
    ------
    BadFileError
        Where what follows cannot be told apart as rows at all.
    """
    broken: dict[int, str] = {}

    def remember(row: Any) -> str:  # noqa: ANN401 - Arrow does not export the type
        # Arrow counts the header.
        broken[row.number - 1] = wrong_width(row.actual_columns, row.expected_columns)
        return "skip"

    form = read_csv_format(path)
    read = pacsv.ReadOptions(
        block_size=CSV_BLOCK_BYTES, column_names=list(form.names), skip_rows=1, use_threads=False
    )
    parse = form.parse_options(invalid_row_handler=remember)
    # As bytes no cell is refused.
    convert = convert_options(dict.fromkeys([*numbers, *texts], pa.binary()))
    last, told = 0, after
    try:
        with open_csv_bytes(path) as file:
            blocks = pacsv.open_csv(file, read, parse, convert)
            # An empty block after the last one brings the broken rows at the end.
            for raw in chain(blocks, [pa.RecordBatch.from_pylist([], blocks.schema)]):
                block = with_decimal_points(raw, numbers, form.decimal_point)
                row_numbers = _number_rows(block.num_rows, last, broken)
                last = int(row_numbers[-1]) if len(row_numbers) else last
                row_reasons = {row: f"row {row}: {why}" for row, why in broken.items() if row > told}
                told = max(told, *row_reasons, 0)
                start = int(np.searchsorted(row_numbers, after, "right"))
                yield _convert_block(block.slice(start), row_numbers[start:], numbers, row_reasons)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadFileError(f"{path}: what follows row {last} is not CSV") from error


def _number_rows(count: int, last: int, broken: dict[int, str]) -> NDArray[np.int64]:
    """Return the file's numbers of the next `count` rows that are not broken."""
    candidates = np.arange(last + 1, last + 1 + count + len(broken))
    return candidates[~np.isin(candidates, list(broken))][:count]


def _convert_block(
    block: pa.RecordBatch,
    row_numbers: NDArray[np.int64],
    numbers: Sequence[str],
    row_reasons: dict[int, str],
) -> CsvRows:
    columns, reasons = [], dict[int, str]()
    for name, column in zip(block.schema.names, block.columns, strict=True):
        kind, why = (pa.float64(), NO_NUMBER) if name in numbers else (pa.string(), NO_TEXT)
        bad = _find_refused(column, kind)
        for i in bad:
            reasons.setdefault(i, f"column {name}, row {row_numbers[i]}: {why}")
        columns.append(_convert(column, kind, bad))
    return CsvRows(pa.record_batch(columns, names=block.schema.names), row_numbers, reasons, row_reasons)


def _find_refused(column: pa.Array, kind: pa.DataType, offset: int = 0) -> list[int]:
    """Return the indices of all cells that cannot become `kind`, by halving."""
    if converts(column, kind):
        return []
    if len(column) == 1:
        return [offset]
    half = len(column) // 2
    return _find_refused(column[:half], kind, offset) + _find_refused(column[half:], kind, offset + half)


def _convert(column: pa.Array, kind: pa.DataType, bad: list[int]) -> pa.Array:
    if bad:
        keep = np.ones(len(column), bool)
        keep[bad] = False
        column = pc.if_else(pa.array(keep), column, pa.scalar(None, column.type))
    texts = column.cast(pa.string())
    return texts if kind == pa.string() else pc.utf8_trim(texts, BLANKS).cast(kind)
