"""Opens parquet files, and folders of them, in partitions or not.

The rules are those of ``training/data/files.py``, which this package must not import; the same cases are
tested on both.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_SUFFIXES = (".parquet", ".pq")
ROWS = 8192  # read at a time: memory stays flat whatever the file's size


def parquet_files(path: Path) -> list[Path]:
    """Return the files of a parquet table in order: itself, or what a folder holds but for hidden names."""
    if not path.is_dir():
        return [path]
    found = [file for file in path.rglob("*") if file.suffix.lower() in PARQUET_SUFFIXES and file.is_file()]
    return sorted(file for file in found if not any(part[0] in "._" for part in file.relative_to(path).parts))


def column_names(path: Path) -> list[str]:
    """Return the names of all columns, those of the folders between included, without blanks around them.

    Raises
    ------
    DataError
        If there is no parquet file, or pyarrow is not installed.
    """
    files = parquet_files(path)
    if not files:
        raise DataError(f"{path} is a folder without parquet files.")
    with _opened(files[0]) as file:
        names = [name.strip() for name in file.schema_arrow.names]
    return [*names, *(name for name in _folder_values(files[0], path) if name not in names)]


def read_columns(
    path: Path, numbers: Sequence[str], texts: Sequence[str], others: Sequence[str] = ()
) -> Iterator[dict[str, list[Any]]]:
    """Yield some rows at a time as columns, with None where a value is missing.

    Parameters
    ----------
    numbers, texts, others : sequence of str
        Columns to read as floats, as text, and as they are.

    Raises
    ------
    DataError
        If a part of the table cannot be read, or a column is not of numbers or texts.
    """
    wanted = (*numbers, *texts, *others)
    for part in parquet_files(path):
        with _opened(part) as file:
            stored = {name.strip(): name for name in file.schema_arrow.names}
            folders = {
                name: value for name, value in _folder_values(part, path).items() if name not in stored
            }
            for name in wanted:
                if name not in stored and name not in folders:  # another file of the same folder has it
                    raise DataError(f"{part} lacks the column {name}.")
                if name in numbers and name in folders:
                    raise DataError(f"{part}: column {name} is the name of a folder, no number.")
            for batch in file.iter_batches(ROWS, columns=[stored[name] for name in wanted if name in stored]):
                columns: dict[str, list[Any]] = {}
                for name in wanted:
                    if name in folders:
                        columns[name] = [folders[name]] * batch.num_rows
                    elif name in others:
                        columns[name] = batch.column(stored[name]).to_pylist()
                    else:
                        column = batch.column(stored[name])
                        columns[name] = _convert(part, name, column, is_number=name in numbers)
                yield columns


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException, parquet  # the bridge does not need it
    except ImportError as error:
        raise DataError(
            "Reading parquet needs pyarrow: install the group `parquet`, or give a CSV file."
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error


def _folder_values(file: Path, root: Path) -> dict[str, str]:
    """Return the columns that the folders between stand for, as in ``date=2026-01-01/part-0.parquet``."""
    if file == root:
        return {}
    pairs = (part.partition("=") for part in file.relative_to(root).parts[:-1] if "=" in part)
    return {name: value for name, _, value in pairs}


def _convert(path: Path, name: str, column: "pa.Array", *, is_number: bool) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.binary())
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    no_number = is_text or pa.types.is_boolean(column.type) or pa.types.is_temporal(column.type)
    try:
        if is_number and no_number:
            raise pa.ArrowTypeError(f"holds {column.type}")
        cast = column.cast(pa.float64() if is_number else pa.string(), safe=not is_number)
    except pa.ArrowInvalid as error:
        what = "a cell is no number" if is_number else "holds bytes that are not text in UTF-8"
        raise DataError(f"{path}: column {name} {what}.") from error
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise DataError(f"{path}: column {name} holds {column.type} where a number belongs.") from error
    cells: list[Any] = cast.to_pylist()
    return cells
