"""One promotion at a time: no other process moves the alias between the gate's answer and the move."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import RegistryError

# A promotion judges again where the champion has changed: seconds, not minutes.
TIMEOUT_S = 300.0


@contextmanager
def promotion_lock(tracking_uri: str) -> Iterator[None]:
    """Hold the lock beside a SQLite registry; the lock ends with the process, however that ends.

    An MLflow server has no lock to offer: there the caller looks at the champion again right before it moves
    the alias.

    Raises
    ------
    RegistryError
        If another process holds the lock for too long.
    """
    if not tracking_uri.startswith("sqlite:///"):
        yield
        return
    database = tracking_uri.removeprefix("sqlite:///").partition("?")[0]
    descriptor = os.open(Path(database).resolve().parent, os.O_RDONLY)
    try:
        _acquire(descriptor)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise RegistryError(f"another promotion has held the registry for {TIMEOUT_S:g} s") from error
            time.sleep(0.1)
        else:
            return
