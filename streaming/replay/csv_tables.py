"""Opens text tables as people have them: compressed, with another separator, with a decimal comma.

The rules are those of ``training/data/csv_format.py``, which this package must not import; the same cases
are tested on both.
"""

import csv
import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from streaming.errors import DataError

CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".zip")
_SEPARATORS = (",", ";", "\t")
_UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class CsvTable:
    """An open table.

    Attributes
    ----------
    names : tuple of str
        The header, without blanks around each name.
    has_decimal_commas : bool
        Whether numbers are written ``1,5``.
    rows : iterator of list of str
        As they are: some may have fewer cells than there are names, or more.
    """

    names: tuple[str, ...]
    has_decimal_commas: bool
    rows: Iterator[list[str]]

    def number(self, cell: str) -> float:
        """Return a cell as a number, NaN where it is none.

        As Arrow reads it: Python alone would take ``1_0`` and the digits of other scripts.
        """
        text = cell.strip(" \t")
        if self.has_decimal_commas:
            text = text.replace(".", "?").replace(",", ".")
        try:
            return float(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            return math.nan


def is_csv(path: Path) -> bool:
    """Say whether a path is that of a text table, by its suffix."""
    return path.name.lower().endswith(CSV_SUFFIXES)


@contextmanager
def open_csv_table(path: Path) -> Iterator[CsvTable]:
    """Open a text table.

    Raises
    ------
    DataError
        Also while its rows are read: if it is not compressed as its suffix says, an archive holds another
        number of tables, or it is not CSV.
    """
    try:
        # What is not UTF-8 matters in the columns that are used only: their reader refuses the surrogates.
        with (
            _open_bytes(path) as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as text,
        ):
            header = text.readline()
            header.encode()
            separator = max(_SEPARATORS, key=lambda one: len(_cells(header, one)))
            names = tuple(name.strip() for name in _cells(header, separator))
            first = text.readline()
            has_commas = separator != "," and any(map(_is_decimal, _cells(first, separator)))
            reader = csv.reader(_chain(first, text), delimiter=separator, strict=True)
            yield CsvTable(names, has_commas, filter(None, reader))  # a blank line is no row
    except UnicodeEncodeError as error:
        raise DataError(f"{path} cannot be read as CSV: its header is not text in UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    except _UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as CSV: a part of it is not readable; is it damaged?"
        ) from error


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rb") as file:
            yield file  # type: ignore[misc]  # a GzipFile reads as any other
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(_only_table(path, archive)) as member:
            yield member
    else:
        with path.open("rb") as file:
            yield file


def _only_table(path: Path, archive: zipfile.ZipFile) -> str:
    tables = [
        name
        for name in archive.namelist()
        if name.lower().endswith((".csv", ".tsv")) and not name.startswith("__MACOSX")
    ]
    if len(tables) != 1:
        raise DataError(f"{path} holds {len(tables)} CSV files where there should be one.")
    return tables[0]


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _is_decimal(cell: str) -> bool:
    whole, comma, part = cell.strip().lstrip("+-").partition(",")
    return bool(comma) and whole.isdigit() and part.isdigit()


def _chain(first: str, rest: IO[str]) -> Iterator[str]:
    yield first
    yield from rest


def is_text(cell: str) -> bool:
    """Say whether a cell holds text, and was UTF-8."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return bool(cell)
