"""When to fetch: late enough for a full batch, early enough to be decided when the publisher is free."""

from __future__ import annotations

import time
from collections.abc import Callable

# What one more measurement counts in a running mean.
SHARE = 0.1
# Whatever takes longer is a standstill, and says nothing about the next time.
LONGEST_S = 0.05


class FetchTiming:
    """Learns how long a transaction takes, and how long a batch takes from its fetch to its decisions.

    A batch that is decided before the transaction ahead of it ends only waits, while records that it could
    have held wait for the next one. So its fetch begins just early enough.

    Parameters
    ----------
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._publish_s = 0.0
        self._prepare_s = 0.0
        self._publishing_since: float | None = None

    def publishing(self) -> None:
        """Note that a transaction begins."""
        self._publishing_since = self._clock()

    def published(self) -> None:
        """Note that it ended."""
        if self._publishing_since is not None:
            self._publish_s = _mean(self._publish_s, self._clock() - self._publishing_since)
            self._publishing_since = None

    def prepared(self, since: float) -> None:
        """Note that a batch is decided whose fetch began at `since`, by the same clock."""
        self._prepare_s = _mean(self._prepare_s, self._clock() - since)

    @property
    def wait_s(self) -> float:
        """How long the next fetch can wait, seconds; 0 when nothing is being published."""
        since = self._publishing_since
        if since is None:
            return 0.0
        return max(0.0, since + self._publish_s - self._prepare_s - self._clock())


def _mean(before: float, measured: float) -> float:
    return before + SHARE * (min(measured, LONGEST_S) - before)
