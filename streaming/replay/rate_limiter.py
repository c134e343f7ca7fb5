"""Keeps a rate: sends in ticks, and catches up after a delay."""

import time
from collections.abc import Callable

# Largest chunk: it is held in memory, and a stop is noticed only after it is sent.
MAX_CHUNK = 1000


class RateLimiter:
    """Tells how many may be sent by now.

    Sleeping between single records costs half a core at 1000/s and drifts; ticks with a plan made
    from the start time do neither.

    Parameters
    ----------
    rate : float
        Per second; 0: no limit.
    tick_s : float
        Shortest time between two chunks, seconds.
    clock, sleep : callable
        Replaced in tests.
    """

    def __init__(
        self,
        rate: float,
        tick_s: float,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._tick_s = tick_s
        self._clock = clock
        self._sleep = sleep
        self._begun = clock()
        self._granted = 0

    def next_chunk(self) -> int:
        """Wait for the next tick; return how many to send now, at least 1.

        After a delay several full chunks follow without a wait.
        """
        if self._rate == 0:
            return MAX_CHUNK
        while True:
            elapsed = self._clock() - self._begun
            due = min(int(elapsed * self._rate) + 1 - self._granted, MAX_CHUNK)
            if due > 0:
                self._granted += due
                return due
            next_tick = (int(elapsed / self._tick_s) + 1) * self._tick_s
            self._sleep(max(self._tick_s / 50, next_tick - elapsed))
