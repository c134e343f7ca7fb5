"""What the processes of one service tell each other about releases: a small file of each, in one folder.

BentoML lets the processes of a service share only sockets, behind which any of them may answer. To change
over together every gateway process must know what each runner process has loaded, and the runners what is
asked for. A process holds a lock on its file until it ends, so a file without a lock is a dead process's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Set by the first process of a service for those it starts.
FOLDER_VARIABLE = "FRAUD_DETECTION_BOARD"
# A dead process's note is cleared away after this: no process can be replacing it any more.
ABANDONED_S = 60.0


class Board:
    """The folder of one service's notes.

    Parameters
    ----------
    folder : Path
        Shared by the processes of one service and by no other.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def stamp(self) -> int:
        """Return what changes with every note."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0

    def post(self, role: str, note: Mapping[str, Any]) -> None:
        """Replace this process's note of a role; readers see the old or the new one.

        Raises
        ------
        OSError
            If it cannot be written; the old one stays.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".", dir=self._folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, json.dumps(note).encode())
            Path(name).replace(self._folder / f"{role}.{os.getpid()}")
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        before = self._held.pop(role, None)
        self._held[role] = descriptor
        if before is not None:
            os.close(before)

    def notes(self, role: str) -> list[dict[str, Any]]:
        """Return the notes of all living processes of a role."""
        found = (self._read(path) for path in self._folder.glob(f"{role}.*"))
        return [note for note in found if note is not None]

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Return a note; None if its process is dead."""
        while True:
            try:
                with path.open("rb") as file:
                    if _is_locked(file.fileno()):
                        note: dict[str, Any] = json.loads(file.read())
                        return note
                    opened, found = os.fstat(file.fileno()), path.stat()
            except (OSError, ValueError):
                return None
            if opened.st_ino == found.st_ino:  # else it was replaced just now
                if time.time() - found.st_mtime > ABANDONED_S:
                    path.unlink(missing_ok=True)
                return None

    def claim(self, what: str) -> bool:
        """Say whether this process is the service's first to claim `what`: one log line, not one each."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._folder / f".claimed-{what}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        except OSError:  # a full disk: better said twice than not at all
            return True
        return True

    def close(self) -> None:
        """Give up this process's notes."""
        while self._held:
            os.close(self._held.popitem()[1])


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
