"""How SIGTERM and Ctrl-C end a command: through the clean-up of open blocks, never out of a registry call.

An exception that a signal raises in the middle of SQLAlchemy leaves a transaction open and the database
locked: the clean-up could then no longer close the runs of the training.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_deferring = 0
_pending: int | None = None


def install_stop_handlers() -> None:
    """Let SIGTERM raise SystemExit(143) and SIGINT raise KeyboardInterrupt, outside `stop_deferred` only."""
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGINT, _on_signal)


@contextmanager
def stop_deferred() -> Iterator[None]:
    """Let a stop that arrives in this block take effect at its end, and a second one at once; blocks nest."""
    global _deferring  # noqa: PLW0603 - signals belong to the process, and so does their state
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
        if not _deferring:
            _raise_pending()


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _pending  # noqa: PLW0603
    insisted = _pending is not None  # somebody does not want to wait for a registry that does not answer
    _pending = number
    if insisted or not _deferring:
        _raise_pending()


def _raise_pending() -> None:
    global _pending
    number, _pending = _pending, None
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number is not None:
        raise SystemExit(128 + number)
