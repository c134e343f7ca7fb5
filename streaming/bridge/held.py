"""Partitions that stand still because the service fails on one of their records."""

import time
from collections.abc import Callable, Iterable

import structlog

from streaming.bridge_state import BridgeState, HeldRecord
from streaming.observability.metrics import Metrics
from streaming.ports import Source

log = structlog.get_logger()

# Waits between two attempts at a held record: doubled from the first to the last.
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 60.0


class HeldPartitions:
    """Holds the partition of a record that cannot be decided, and tries it again; the others go on.

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
            held[record.partition] = HeldRecord(record.partition, record.offset, record.error, attempts)
            wait_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(attempts - 1, 10))
            self._retry_at[record.partition] = self._clock() + wait_s
            self._source.hold(record.partition)
            log.error(
                "record_held",
                partition=record.partition,
                offset=record.offset,
                error=record.error,
                attempts=attempts,
                retry_in_s=wait_s,
                action=f"mend the service, or `streaming skip --partition {record.partition} "
                f"--offset {record.offset} --reason TEXT`",
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
            elif self._is_due(record) and self._retry_at.pop(partition, None) is not None:
                self._source.release(partition)
        self._show(held)

    def _is_due(self, record: HeldRecord) -> bool:
        if (record.partition, record.offset) in self._state.skip_orders:
            return True
        return self._clock() >= self._retry_at.get(record.partition, float("inf"))

    def forget(self) -> None:
        """Forget all: the partitions have been assigned anew."""
        for partition in self._state.held:
            self._source.release(partition)
        self._retry_at.clear()
        self._show({})

    def _show(self, held: dict[int, HeldRecord]) -> None:
        self._state.held = held
        self._metrics.show_held(len(held))
