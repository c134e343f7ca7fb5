"""Keeps the newest pairs of the model store; what somebody needs is never deleted.

A running service holds a shared lock on the folders of the pairs it has loaded; the kernel takes the lock
back when the process ends, however it ends. Containers that share the store share the locks.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path


def versions_beyond(newest_first: Sequence[str], keep: int, needed: frozenset[str]) -> list[str]:
    """Return the versions beyond the newest `keep` that are not `needed`.

    Examples
    --------
    >>> versions_beyond(["5", "4", "3", "2", "1"], 2, frozenset({"3"}))
    ['2', '1']
    """
    return [version for version in newest_first[keep:] if version not in needed]


@contextmanager
def unused(*folders: Path) -> Iterator[bool]:
    """Yield whether no service holds a model in `folders`, and keep it so meanwhile.

    Where that cannot be decided, as on a file system without locks, the answer is no.
    """
    with ExitStack() as stack:
        yield all(_try_lock(folder, stack) for folder in folders)


def _try_lock(folder: Path, stack: ExitStack) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
