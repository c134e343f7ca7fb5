"""Limits how long calls to the runners take; a stall of this process's own loop is no silence of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Of the time that a call may take: how often calls are looked at.
INTERVAL_SHARE = 0.05


class Deadlines:
    """One timer for all calls under way.

    After a stall a loop runs its timers before it reads what has come meanwhile. Without this, every call
    under way would be over its deadline then, and runners that had answered would be taken for dead.

    Parameters
    ----------
    limit_s : float
        How long a call may take, in the time that the loop ran; looked at every twentieth of that.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._interval_s = limit_s * INTERVAL_SHARE
        self._under_way: dict[asyncio.Task[Any], tuple[float, float]] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._is_ticking = False
        self._was_late = False
        self.lost_s = 0.0
        """How long the loop has stalled until now, in all."""

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notice from now on when `loop` is late, as long as anything is under way."""
        if not self._is_ticking:
            self._tick_later(loop)

    @contextmanager
    def limit(self, since: float, lost_s: float) -> Iterator[None]:
        """Limit how long the block may take.

        Parameters
        ----------
        since, lost_s : float
            The loop's time, and `lost_s`, when the time of the block began.

        Raises
        ------
        TimeoutError
            If it takes too long.
        """
        task = asyncio.current_task()
        assert task is not None, "calls are made in tasks"
        self._under_way[task] = since, lost_s
        self.watch(task.get_loop())
        try:
            yield
        except asyncio.CancelledError:
            if task in self._expired:
                task.uncancel()
                raise TimeoutError from None
            raise
        finally:
            del self._under_way[task]
            self._expired.discard(task)

    def _tick_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_ticking = True
        loop.call_later(self._interval_s, self._tick, loop, loop.time() + self._interval_s)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._is_ticking = False
        now = loop.time()
        is_late = now - due > self._interval_s
        # Not twice running: what had come before has been read since, and a slow loop must not wait for ever.
        if is_late and not self._was_late:
            self.lost_s += now - due
        self._was_late = is_late
        for task, (since, lost_s) in self._under_way.items():
            took_s = now - since - (self.lost_s - lost_s)
            if took_s >= self._limit_s and task not in self._expired:
                self._expired.add(task)
                task.cancel()
        if self._under_way:
            self._tick_later(loop)
