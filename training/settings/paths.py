"""Paths that a command cannot do without."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from training.errors import UsageError

PathOrText = TypeVar("PathOrText", Path, str)


def require_path(path: PathOrText | None, flag: str) -> PathOrText:
    """Return the path of a file that a command cannot do without.

    Raises
    ------
    UsageError
        If neither flag, variable nor file names it.
    """
    if path is None:
        raise UsageError(f"{flag} is missing: name a CSV or parquet file")
    return path
