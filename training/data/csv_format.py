"""How a text table is written: compressed or not, its separator, its decimal point."""

from __future__ import annotations

import csv
import gzip
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from training.errors import BadFileError

CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".zip")
_SEPARATORS = (",", ";", "\t")
# Enough for a header and a row of any table of this kind.
_LOOKED_AT_BYTES = 1 << 16
_UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class CsvFormat:
    """What the first rows of a table show."""

    names: tuple[str, ...]  # of the columns, without blanks around them
    separator: str
    decimal_point: str

    def parse_options(self, **options: object) -> pacsv.ParseOptions:
        """Return how Arrow parses the table; a quoted cell may hold line breaks."""
        return pacsv.ParseOptions(delimiter=self.separator, newlines_in_values=True, **options)


def is_csv(path: Path) -> bool:
    """Say whether a path is that of a text table, by its suffix."""
    return path.name.lower().endswith(CSV_SUFFIXES)


@contextmanager
def open_csv_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a text table and undo its compression; a zip archive must hold one table and nothing else.

    Raises
    ------
    BadFileError
        If it is not compressed as its suffix says, or the archive holds another number of tables.
    """
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rb") as file:
                yield file  # type: ignore[misc]  # a GzipFile reads as any other
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(_only_table(path, archive)) as member:
                yield member
        else:
            with path.open("rb") as file:
                yield file
    except _UNREADABLE as error:
        raise BadFileError(f"{path}: a part of the file is not readable; is it damaged?") from error


def read_csv_format(path: Path) -> CsvFormat:
    """Return names, separator and decimal point of a table.

    Raises
    ------
    BadFileError
        If the header is not CSV text in UTF-8.
    """
    with open_csv_bytes(path) as file:
        start = file.read(_LOOKED_AT_BYTES)
    header, _, rest = start.partition(b"\n")
    try:
        title = header.decode("utf-8-sig")
        separator = _separator(title)
        names = tuple(name.strip() for name in next(csv.reader([title], delimiter=separator), []))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadFileError(f"{path}: the header is not CSV text in UTF-8") from error
    first = rest.partition(b"\n")[0].decode("utf-8", "replace")
    cells = next(csv.reader([first], delimiter=separator), [])
    has_commas = separator != "," and any(_is_decimal(cell) for cell in cells)
    return CsvFormat(names, separator, "," if has_commas else ".")


def _separator(header: str) -> str:
    """Return what divides the header into most columns."""
    return max(_SEPARATORS, key=lambda separator: len(next(csv.reader([header], delimiter=separator), [])))


def _is_decimal(cell: str) -> bool:
    whole, comma, part = cell.strip().lstrip("+-").partition(",")
    return bool(comma) and whole.isdigit() and part.isdigit()


def _only_table(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    tables = [
        item
        for item in archive.infolist()
        if item.filename.lower().endswith((".csv", ".tsv")) and not item.filename.startswith("__MACOSX")
    ]
    if len(tables) != 1:
        raise BadFileError(f"{path}: holds {len(tables)} CSV files where there should be one")
    return tables[0]


def with_decimal_points(block: pa.RecordBatch, numbers: Sequence[str], decimal_point: str) -> pa.RecordBatch:
    """Return columns of bytes whose numbers have a point, as Arrow's casts want it."""
    if decimal_point == ".":
        return block
    columns = [
        pc.replace_substring(column, decimal_point, ".") if name in numbers else column
        for name, column in zip(block.schema.names, block.columns, strict=True)
    ]
    return pa.record_batch(columns, names=block.schema.names)
