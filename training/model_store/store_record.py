"""Which pairs of the model store are active, challenger and previous: one small file beside the models.

Running services watch this file and follow it, so it is replaced whole: they read the old or the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.errors import StoreError

RECORD_FILE = "releases.json"
SCHEMA = 1


@dataclass(frozen=True)
class Pair:
    """Two models of the store that were imported as one release; `version` is the store's, for both."""

    version: str
    release: str
    fingerprint: str


@dataclass(frozen=True)
class StoreRecord:
    """What services follow: the active pair, the challenger, and the pair that was active before."""

    active: Pair | None = None
    challenger: Pair | None = None
    previous: Pair | None = None

    def with_active(self, pair: Pair) -> StoreRecord:
        """Return the record after `pair` became active; an active release is no challenger any more."""
        previous = self.previous if self.active in (pair, None) else self.active
        challenges = self.challenger is not None and self.challenger.release != pair.release
        return StoreRecord(pair, self.challenger if challenges else None, previous)

    def with_challenger(self, pair: Pair) -> StoreRecord:
        """Return the record after `pair` became challenger."""
        return replace(self, challenger=pair)

    @property
    def versions(self) -> frozenset[str]:
        """Versions that must stay in the store."""
        pairs = (self.active, self.challenger, self.previous)
        return frozenset(pair.version for pair in pairs if pair is not None)


def read_record(models: Path) -> StoreRecord | None:
    """Return the record in the folder `models` of a store; None in a store older than the record.

    Raises
    ------
    StoreError
        If the file cannot be read as a record.
    """
    path = models / RECORD_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}")
        return StoreRecord(**{name: _pair(document[name]) for name in ("active", "challenger", "previous")})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read as the store's record of releases ({error!r}): "
            "remove it, then run `python -m training import`"
        ) from error


def write_record(models: Path, record: StoreRecord) -> None:
    """Replace the record in the folder `models`; cut anywhere, the old one or the new one is there.

    Raises
    ------
    StoreError
        If it cannot be written; the old one stays.
    """
    document = {"schema": SCHEMA, **asdict(record)}
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{RECORD_FILE}.", dir=models)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2)
                file.flush()
                os.fchmod(file.fileno(), 0o644)  # services may run as another user
                os.fsync(file.fileno())
            Path(name).replace(models / RECORD_FILE)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        _sync(models)
    except OSError as error:
        raise StoreError(f"{models / RECORD_FILE} cannot be written: {error.strerror or error}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pair(document: Mapping[str, Any] | None) -> Pair | None:
    if document is None:
        return None
    pair = Pair(**document)
    if not all(isinstance(value, str) and value for value in (pair.version, pair.release)):
        raise ValueError("a pair has no version or no release")
    return pair
