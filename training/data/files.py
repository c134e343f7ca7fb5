"""How data files are read: checked batches of named columns.

The fast path lets Arrow convert whole columns. Where it refuses a CSV, the file is read a second
time as text, only to name the column and row, so that good files pay nothing for clear errors.
"""

import contextlib
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from training.data.csv_format import (
    CSV_SUFFIXES,
    is_csv,
    open_csv_bytes,
    read_csv_format,
    with_decimal_points,
)
from training.data.parquet_tables import (
    LABEL,
    NO_NUMBER,
    NO_TEXT,
    PARQUET_SUFFIXES,
    convert_column,
    open_parquet,
    parquet_files,
    partition_values,
    read_parquet,
)
from training.errors import BadFileError, NoSuchFileError

MISSING = "the value is missing"
# Arrow's CSV reader works block by block; 4 MiB is about 8,000 transactions.
CSV_BLOCK_BYTES = 1 << 22
# What Arrow takes from around a number; a no-break space is text.
BLANKS = " \t"


def check_path(path: Path) -> None:
    """Raise NoSuchFileError unless `path` is a table with a known suffix, BadFileError when it is empty.

    A folder is a table if it holds parquet files, in partitions or not.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and not is_csv(path):
            if not parquet_files(path):
                raise NoSuchFileError(f"{path}: is a folder without parquet files")
            return
        if not stat.S_ISREG(mode):
            raise NoSuchFileError(f"{path}: is not a file")
        if not is_csv(path) and path.suffix.lower() not in PARQUET_SUFFIXES:
            known = f"{', '.join(CSV_SUFFIXES)}, {' or '.join(PARQUET_SUFFIXES)}"
            raise NoSuchFileError(f"{path}: the suffix must be {known}")
        with path.open("rb") as file:  # what may be read shows only here
            empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoSuchFileError(f"{path}: there is no such file") from error
    except OSError as error:
        raise NoSuchFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if empty:
        raise BadFileError(f"{path}: the file is empty")


def column_names(path: Path) -> list[str]:
    """Return the names of all columns in file order, without blanks around them; duplicates stay."""
    if is_csv(path):
        return list(read_csv_format(path).names)
    files = parquet_files(path)
    with open_parquet(files[0]) as file:
        names = [name.strip() for name in file.schema_arrow.names]
    return [*names, *partition_values(files[0], path)]


def check_columns(path: Path, required: Sequence[str], optional: Sequence[str]) -> list[str]:
    """Return which of `required` and `optional` the file has, or raise BadFileError for what is wrong."""
    counts = Counter(column_names(path))
    missing = [name for name in required if not counts[name]]
    if missing:
        raise BadFileError(f"{path}: missing column{'s'[: len(missing) > 1]} {', '.join(missing)}")
    wanted = [name for name in (*required, *optional) if counts[name]]
    repeated = [name for name in wanted if counts[name] > 1]
    if repeated:
        raise BadFileError(f"{path}: column {repeated[0]} is in the header {counts[repeated[0]]} times")
    return wanted


def count_rows(path: Path) -> int:
    """Return the number of data rows: exact for parquet, the lines after the header for CSV.

    Raises like ``check_path`` for a path that names no file to read.
    """
    check_path(path)
    if not is_csv(path):
        total = 0
        for part in parquet_files(path):
            with open_parquet(part) as file:
                total += int(file.metadata.num_rows)
        return total
    lines, last = 0, b"\n"
    with open_csv_bytes(path) as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
            last = block[-1:]
    return max(0, lines + (last != b"\n") - 1)


def read_batches(
    path: Path, numbers: Sequence[str], texts: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the columns `numbers` as float64 and `texts` as text, without nulls, at most `rows` at a time.

    Raises
    ------
    BadFileError
        For the first batch with text where a number belongs, an empty cell, or a broken row.
    """
    read = _read_csv if is_csv(path) else read_parquet
    first_row = 0
    for batch in read(path, numbers, texts, rows):
        _refuse_nulls(path, batch, first_row)
        first_row += batch.num_rows
        yield batch


def read_raw_batches(
    path: Path, numbers: Sequence[str], texts: Sequence[str], rows: int, row_groups: Sequence[int] | None
) -> Iterator[pa.RecordBatch]:
    """Yield batches like `read_batches`, but with nulls where a value is missing.

    Parameters
    ----------
    row_groups : sequence of int, optional
        Which groups of a parquet file to read; all by default.

    Raises
    ------
    BadFileError
        If the file as a whole, or a part of a parquet file, cannot be read.
    pyarrow.ArrowInvalid
        If a row or a cell of a CSV is not what its column holds.
    """
    if is_csv(path):
        return _read_csv_blocks(path, numbers, texts, rows)
    return read_parquet(path, numbers, texts, rows, row_groups)


def _refuse_nulls(path: Path, batch: pa.RecordBatch, first_row: int) -> None:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count:
            row = first_row + int(pc.index(column.is_null(), True).as_py()) + 1
            raise BadFileError(f"{path}: column {name}, row {row}: {MISSING}")


def convert_options(types: dict[str, pa.DataType], decimal_point: str = ".") -> pacsv.ConvertOptions:
    """Return how cells of the columns in `types` are converted."""
    # Only an empty cell is missing: "NA" is text, "nan" a number that is refused later.
    return pacsv.ConvertOptions(
        include_columns=list(types),
        column_types=types,
        null_values=[""],
        strings_can_be_null=True,
        decimal_point=decimal_point,
    )


def _read_csv(
    path: Path, numbers: Sequence[str], texts: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    try:
        yield from _read_csv_blocks(path, numbers, texts, rows)
    except pa.ArrowInvalid as error:
        problem = _find_problem(path, numbers, texts)
        raise BadFileError(f"{path}: {problem}") from error


def _read_csv_blocks(
    path: Path, numbers: Sequence[str], texts: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    form = read_csv_format(path)
    types = {**dict.fromkeys(numbers, pa.float64()), **dict.fromkeys(texts, pa.string())}
    if LABEL in types:
        types[LABEL] = pa.string()  # true and false are labels too
    options = pacsv.ReadOptions(
        block_size=CSV_BLOCK_BYTES,
        column_names=list(form.names),
        skip_rows=1,
        use_threads=pa.cpu_count() > 1,
    )
    convert = convert_options(types, form.decimal_point)
    try:
        with open_csv_bytes(path) as file:
            for block in pacsv.open_csv(file, options, form.parse_options(), convert):
                for start in range(0, block.num_rows, rows):
                    yield _with_label(block.slice(start, rows))
    except OSError as error:
        raise BadFileError(f"{path}: a part of the file is not readable; is it damaged?") from error


def _with_label(block: pa.RecordBatch) -> pa.RecordBatch:
    if LABEL not in block.schema.names:
        return block
    at = block.schema.get_field_index(LABEL)
    label = convert_column(block.column(at), LABEL, pa.float64())
    return block.set_column(at, LABEL, label)


def _find_problem(path: Path, numbers: Sequence[str], texts: Sequence[str]) -> str:
    """Return column and row of the first thing in a CSV that Arrow refuses."""
    broken: list[Any] = []

    def remember(row: Any) -> str:  # noqa: ANN401 - Arrow does not export the type
        broken.append(row)
        return "skip"

    form = read_csv_format(path)
    names = list(form.names)
    read = pacsv.ReadOptions(block_size=CSV_BLOCK_BYTES, column_names=names, skip_rows=1, use_threads=False)
    parse = form.parse_options(invalid_row_handler=remember)
    # As bytes nothing is refused, so that every cell can be looked at.
    convert = convert_options(dict.fromkeys([*numbers, *texts], pa.binary()))
    first_row = 0
    with contextlib.suppress(pa.ArrowInvalid), open_csv_bytes(path) as file:
        for raw in pacsv.open_csv(file, read, parse, convert):
            block = with_decimal_points(raw, numbers, form.decimal_point)
            cell = _first_refused_cell(block, numbers)
            # A broken row counts in its number, which includes the header, but is left out of the block.
            if cell and not (broken and broken[0].number - 2 <= first_row + cell[0]):
                return f"column {cell[1]}, row {first_row + cell[0] + 1}: {cell[2]}"
            if broken:
                break
            first_row += block.num_rows
    if broken:
        row, found, expected = broken[0].number - 1, broken[0].actual_columns, broken[0].expected_columns
        return f"row {row}: {wrong_width(found, expected)}"
    return f"what follows row {first_row} is not CSV"


def wrong_width(found: int, expected: int) -> str:
    """Say what is wrong with a row of `found` fields."""
    return f"has {found} fields where the header has {expected}"


def _first_refused_cell(block: pa.RecordBatch, numbers: Sequence[str]) -> tuple[int, str, str] | None:
    """Return (index, column, reason) of the first cell that is not what its column holds."""
    cells = []
    for name in block.schema.names:
        kind = pa.float64() if name in numbers else pa.string()
        row = _first_refused(block.column(name), kind)
        if row is not None:
            reason = NO_NUMBER if name in numbers else NO_TEXT
            cells.append((row, name, reason))
    return min(cells, key=lambda cell: cell[0], default=None)


def _first_refused(column: pa.Array, kind: pa.DataType) -> int | None:
    """Return the index of the first cell that cannot become `kind`, by halving; None when all can."""
    if converts(column, kind):
        return None
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if converts(column[low:middle], kind) else (low, middle)
    return low


def converts(column: pa.Array, kind: pa.DataType) -> bool:
    """Say whether all cells, as bytes, can become `kind`."""
    try:
        texts = column.cast(pa.string())
        if kind != pa.string():
            pc.utf8_trim(texts, BLANKS).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
