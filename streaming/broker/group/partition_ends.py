# ruff: noqa: ANN401  # kafka-python is untyped
"""How far a consumer lies behind the ends of its partitions, and when their leaders last answered."""

import contextlib
import time
from collections.abc import Collection
from typing import Any

from kafka import TopicPartition
from kafka import errors as kafka_errors

from streaming.broker.compat import kafka_internals

# While paused the loop waits anyway, but a broker that does not answer must not hold it up for long.
ENDS_EVERY_S, ENDS_TIMEOUT_MS = 3.0, 500


class PartitionEnds:
    """Asks the leaders every few seconds.

    Fetches tell where partitions end, but not while paused, and nothing else tells whether a leader that has
    no new records still answers.
    """

    def __init__(self) -> None:
        self._asked: dict[TopicPartition, int] = {}
        self._asked_at = float("-inf")
        self.answered_at = float("-inf")
        """When every leader last answered, by ``time.monotonic()``."""

    def lags(self, consumer: Any) -> dict[int, int]:
        """Return, by partition, the records that a consumer has not fetched yet."""
        assigned = consumer.assignment()
        if assigned:
            self._ask(consumer, assigned)
        found = {}
        for tp in assigned:
            ends = (consumer.highwater(tp), self._asked.get(tp))
            end = max((end for end in ends if end is not None), default=None)
            with contextlib.suppress(kafka_errors.KafkaError):
                position = consumer.position(tp, timeout_ms=0)
                if end is not None and position is not None:
                    found[tp.partition] = max(0, end - position)
        return found

    def _ask(self, consumer: Any, assigned: Collection[TopicPartition]) -> None:
        now = time.monotonic()
        if now - self._asked_at < ENDS_EVERY_S:
            return
        self._asked_at = now
        led = [tp for tp in assigned if kafka_internals.has_leader(consumer, tp)]
        with contextlib.suppress(kafka_errors.KafkaError):
            if led:
                self._asked |= kafka_internals.list_offsets(consumer.end_offsets, led, ENDS_TIMEOUT_MS)
            if len(led) == len(assigned):
                self.answered_at = time.monotonic()
