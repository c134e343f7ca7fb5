"""How parquet files, and folders of them, are read: named columns, converted or refused by place."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.errors import BadFileError

LABEL = "Class"
NO_NUMBER, NO_TEXT = "holds text, not a number", "is not text in UTF-8"
PARQUET_SUFFIXES = (".parquet", ".pq")


def parquet_files(path: Path) -> list[Path]:
    """Return the files of a parquet table in order: itself, or what a folder holds but for hidden names."""
    if not path.is_dir():
        return [path]
    found = [file for file in path.rglob("*") if file.suffix.lower() in PARQUET_SUFFIXES and file.is_file()]
    return sorted(file for file in found if not any(part[0] in "._" for part in file.relative_to(path).parts))


def partition_values(file: Path, root: Path) -> dict[str, str]:
    """Return the columns that the folders between stand for, as in ``Class=1/part-0.parquet``."""
    if file == root:
        return {}
    pairs = (part.partition("=") for part in file.relative_to(root).parts[:-1] if "=" in part)
    return {name: value for name, _, value in pairs}


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file, or raise BadFileError."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise BadFileError(f"{path}: is not a readable parquet file; is it cut off?") from error


def read_parquet(
    path: Path,
    numbers: Sequence[str],
    texts: Sequence[str],
    rows: int,
    row_groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the columns `numbers` as float64 and `texts` as text, at most `rows` at a time, with nulls."""
    first_row = 0
    for part in parquet_files(path):
        with open_parquet(part) as file:
            stored = {name.strip(): name for name in file.schema_arrow.names}
            folders = {
                name: value for name, value in partition_values(part, path).items() if name not in stored
            }
            read = [stored[name] for name in (*numbers, *texts) if name in stored]
            lost = [name for name in (*numbers, *texts) if name not in stored and name not in folders]
            if lost:  # another file of the same folder has them
                raise BadFileError(f"{part}: missing column{'s'[: len(lost) > 1]} {', '.join(lost)}")
            # Group by group: asked for all at once, Arrow reads ahead without bound.
            indices = range(file.num_row_groups) if row_groups is None else row_groups
            threads = pa.cpu_count() > 1
            groups = (
                file.iter_batches(rows, row_groups=[i], columns=read, use_threads=threads) for i in indices
            )
            batches = chain.from_iterable(groups)
            while (batch := _next_batch(part, batches)) is not None:
                yield _convert_parquet(part, batch, stored, folders, numbers, texts, first_row)
                first_row += batch.num_rows


def _convert_parquet(
    path: Path,
    batch: pa.RecordBatch,
    stored: Mapping[str, str],
    folders: Mapping[str, str],
    numbers: Sequence[str],
    texts: Sequence[str],
    first_row: int,
) -> pa.RecordBatch:
    names, columns = [*numbers, *texts], []
    for name in names:
        kind = pa.float64() if name in numbers else pa.string()
        if name in folders:
            column = pa.array([folders[name]] * batch.num_rows, pa.string())
        else:
            column = batch.column(stored[name])
        try:
            columns.append(convert_column(column, name, kind))
        except pa.ArrowInvalid as error:
            row = first_row + _first_unconvertible(column, name, kind) + 1
            why = NO_NUMBER if name in numbers else NO_TEXT
            raise BadFileError(f"{path}: column {name}, row {row}: {why}") from error
        except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise BadFileError(
                f"{path}: column {name}, row {first_row + 1}: holds {column.type} where a number belongs"
            ) from error
    return pa.record_batch(columns, names=names)


def convert_column(column: pa.Array, name: str, kind: pa.DataType) -> pa.Array:
    """Return a column as numbers or texts; only a label may be a truth value or stand as text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.binary())
    if kind == pa.string():
        return column.cast(kind)
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if name == LABEL and is_text:
        lower = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        column = pc.if_else(pc.equal(lower, "true"), "1", pc.if_else(pc.equal(lower, "false"), "0", lower))
    elif is_text or (pa.types.is_boolean(column.type) and name != LABEL) or pa.types.is_temporal(column.type):
        raise pa.ArrowTypeError("not a number")
    return column.cast(kind, safe=False)


def _first_unconvertible(column: pa.Array, name: str, kind: pa.DataType) -> int:
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert_column(column[low:middle], name, kind)
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low


def _next_batch(path: Path, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        raise BadFileError(f"{path}: a part of the parquet file is not readable; is it damaged?") from error
