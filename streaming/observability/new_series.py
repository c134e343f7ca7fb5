"""Holds the first counts of new series back until a scrape has seen them at 0.

Prometheus' `rate` and `increase` do not see the value a series starts with: without this the first seconds of
a release that becomes active while a bridge runs would be missing from every figure by release.
"""

from collections import Counter as Tally
from collections.abc import Iterable
from threading import Lock

from prometheus_client import Counter, Metric
from prometheus_client.registry import Collector
from typing_extensions import override


class HeldCounts(Collector):
    """Counts for a counter, shown one scrape late while they are new.

    Registered after `counter`, it is asked after it in every scrape.

    Parameters
    ----------
    counter : Counter
        Its series must exist, at 0, before `hold` is called.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._held: dict[str, Tally[tuple[str, ...]]] = {}
        self._lock = Lock()

    def hold(self, group: str) -> None:
        """Hold the counts of a group of series back until the next scrape has seen them at 0."""
        with self._lock:
            self._held[group] = Tally()

    def count(self, group: str, labels: tuple[str, ...], number: int) -> None:
        """Count now, or after the next scrape where the group is held."""
        with self._lock:
            held = self._held.get(group)
            if held is not None:
                held[labels] += number
                return
        self._counter.labels(*labels).inc(number)

    @override
    def collect(self) -> Iterable[Metric]:
        """Show nothing: the counter has just shown its series at 0, so what was held counts from now on."""
        with self._lock:
            held, self._held = self._held, {}
            for counts in held.values():
                for labels, number in counts.items():
                    self._counter.labels(*labels).inc(number)
        return ()

    def describe(self) -> Iterable[Metric]:
        """Name no series of its own."""
        return ()
