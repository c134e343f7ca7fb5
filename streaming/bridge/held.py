"""Partitions that stand still because one of their records cannot have an outcome now."""

import time
from collections.abc import Callable, Iterable

import structlog

from streaming.bridge_state import BridgeState
from streaming.observability.metrics import Metrics
from streaming.ports import Source
from streaming.records import HeldCause, HeldRecord

log = structlog.get_logger()

# First and longest wait between two attempts, seconds; doubled from the one to the other. A leader is missing
# for a moment after each failure of a broker.
RETRIES_S: dict[HeldCause, tuple[float, float]] = {
    "service": (5.0, 60.0),
    "unreadable": (5.0, 60.0),
    "leaderless": (1.0, 15.0),
}


class HeldPartitions:
    """Holds the partition of a record without an outcome, and tries it again; the others go on.

    Parameters
    ----------
    source : Source
    metrics : Metrics
    state : BridgeState
        Told what is held.
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(
        self,
        source: Source,
        metrics: Metrics,
        state: BridgeState,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._metrics = metrics
        self._state = state
        self._clock = clock
        self._retry_at: dict[int, float] = {}

    def hold(self, records: Iterable[HeldRecord]) -> None:
        """Stop fetching the partitions of records, until their next attempt."""
        held = dict(self._state.held)
        for record in records:
            before = held.get(record.partition)
            is_same = before is not None and before.offset == record.offset
            attempts = before.attempts + 1 if before is not None and is_same else 1
            held[record.partition] = record._replace(attempts=attempts)
            first_s, longest_s = RETRIES_S[record.cause]
            wait_s = min(longest_s, first_s * 2 ** min(attempts - 1, 10))
            self._retry_at[record.partition] = self._clock() + wait_s
            self._source.hold(record.partition)
            log.error(
                "record_held",
                partition=record.partition,
                offset=record.offset,
                error=record.error,
                attempts=attempts,
                retry_in_s=wait_s,
                action=record.advice,
            )
        self._show(held)

    def release_due(self) -> None:
        """Fetch again what is due, or what a person has ordered to skip; forget what was committed since."""
        if not self._state.held:
            return
        held = dict(self._state.held)
        for partition, record in self._state.held.items():
            if self._state.committed.get(partition, -1) > record.offset:
                log.info("record_no_longer_held", partition=partition, offset=record.offset)
                del held[partition]
                continue
            is_ordered = (record.partition, record.offset) in self._state.skip_orders
            is_due = is_ordered or self._clock() >= self._retry_at.get(partition, float("inf"))
            if is_due and self._retry_at.pop(partition, None) is not None:
                self._source.release(partition)
        self._show(held)

    def forget(self) -> None:
        """Forget all: the partitions have been assigned anew."""
        for partition in self._state.held:
            self._source.release(partition)
        self._retry_at.clear()
        self._show({})

    def _show(self, held: dict[int, HeldRecord]) -> None:
        self._state.held = held
        self._metrics.show_held(len(held))
