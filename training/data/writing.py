"""How data files are written: whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from training.errors import OutputError, UsageError

# What is written; more is read.
SUFFIXES = (".csv", ".parquet")


@contextmanager
def replace_when_done(output: Path) -> Iterator[Path]:
    """Yield a path beside `output` that takes its place on success and is deleted on failure.

    Raises
    ------
    UsageError
        If nothing can be written there; before anything else is done.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{output}: the suffix must be {' or '.join(SUFFIXES)}")
    if not output.parent.is_dir():
        raise UsageError(f"{output}: there is no folder {output.parent}")
    if output.is_dir():
        raise UsageError(f"{output}: is a folder, not a file")
    part = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    try:
        part.touch()
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror or error}") from error
    try:
        yield part
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def translate_write_errors(output: Path) -> Iterator[None]:
    """Turn what the operating system refuses while `output` is written into one sentence."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{output}: could not be written: {error.strerror or error}") from error


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a data file whole or not at all; CSV or parquet by suffix, numbers that read back equal."""
    with replace_when_done(path) as part, translate_write_errors(path):
        if path.suffix.lower() == ".parquet":
            # A reader in chunks holds a row group at a time.
            frame.to_parquet(part, index=False, compression="zstd", row_group_size=65_536)
        else:
            pacsv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), part)
