# ruff: noqa: ANN401  # kafka-python is untyped
"""Reads partitions of several topics without a group; the caller keeps the offsets."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from typing_extensions import override

from streaming.broker.compat.kafka_internals import list_offsets, load_topic_ids, prepare_consumer
from streaming.broker.compat.unreadable_batches import UnreadableBatchError
from streaming.broker.connection import (
    CLIENT_OPTIONS,
    client_config,
    retry_until_reached,
    translate_consumer_error,
    translate_error,
)
from streaming.errors import BrokerUnavailable, CorruptInput, OffsetGone
from streaming.ports import TopicsSource
from streaming.records import InputRecord
from streaming.settings.sections import KafkaSettings

FETCH_MAX_BYTES = 16 * 1024 * 1024  # what the client may hold before poll() asks for it
# How often the ends of the partitions are asked for.
LOOK_S = 2.0
LOOK_TIMEOUT_MS = 2000

# Beyond what there is; or the broker's log ends, or begins anew, before what was read.
OFFSET_GONE = (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError)

Place = tuple[str, int]
"""Topic and partition."""


class TopicsReader(TopicsSource):
    """A consumer, read_committed, with its partitions assigned by hand.

    Parameters
    ----------
    settings : KafkaSettings
    topics : mapping of str to sequence of int
        Topic to the partitions to read.
    """

    def __init__(self, settings: KafkaSettings, topics: Mapping[str, Sequence[int]]) -> None:
        self._timeout_ms = settings.request_timeout_s * 1000
        config = client_config(settings, "monitor")
        self._topics = tuple(topics)
        self._partitions = [
            TopicPartition(topic, number) for topic, numbers in topics.items() for number in numbers
        ]
        self._ends: dict[TopicPartition, int] = {}
        self._looked_at = 0.0
        self._answered_at = time.monotonic()
        self._consumer: Any = retry_until_reached(
            lambda: KafkaConsumer(
                **config,
                **CLIENT_OPTIONS,
                group_id=None,
                isolation_level="read_committed",
                enable_auto_commit=False,
                # What is gone is for the reader to judge: retention, or a topic made again.
                auto_offset_reset="none",
                fetch_max_bytes=FETCH_MAX_BYTES,
                retry_backoff_ms=20,
            ),
            settings.connect_timeout_s,
            settings.bootstrap_servers,
        )
        prepare_consumer(self._consumer, settings.max_decompressed_bytes)
        self._consumer.assign(self._partitions)

    @override
    def bounds(self) -> dict[Place, tuple[int, int]]:
        try:
            first = list_offsets(self._consumer.beginning_offsets, self._partitions, self._timeout_ms)
            last = list_offsets(self._consumer.end_offsets, self._partitions, self._timeout_ms)
        except kafka_errors.KafkaError as error:
            raise BrokerUnavailable(
                f"The broker does not tell where the topics begin and end: {error}"
            ) from error
        return {(tp.topic, tp.partition): (first[tp], last[tp]) for tp in self._partitions}

    @override
    def topic_ids(self) -> dict[str, str]:
        try:
            found = load_topic_ids(self._consumer, self._topics, self._timeout_ms)
        except kafka_errors.KafkaError as error:
            raise BrokerUnavailable(f"The broker does not tell which topics there are: {error}") from error
        self._answered_at = time.monotonic()
        missing = sorted(topic for topic, identity in found.items() if identity is None)
        if missing:
            raise BrokerUnavailable(
                f"Missing topics: {', '.join(missing)}; the monitor goes on when they are created again"
            )
        return {topic: identity for topic, identity in found.items() if identity}

    @override
    def seek(self, positions: Mapping[Place, int]) -> None:
        for (topic, partition), offset in positions.items():
            self._consumer.seek(TopicPartition(topic, partition), offset)

    @override
    def poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        self._look()
        try:
            found = self._consumer.poll(timeout_ms=timeout_ms, max_records=max_records)
        except OFFSET_GONE as error:
            raise OffsetGone("An offset to go on from is not there any more.") from error
        except UnreadableBatchError as error:
            raise CorruptInput(
                f"{error.topic_partition.topic}, partition {error.held.partition}: {error}. To do: "
                f"{error.held.advice}"
            ) from error
        except kafka_errors.KafkaError as error:
            if getattr(error, "retriable", False):
                return []
            raise translate_consumer_error(error, "Reading for the monitor") from error
        return [_record(one) for ones in found.values() for one in ones]

    def _look(self) -> None:
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        try:
            self._ends = list_offsets(self._consumer.end_offsets, self._partitions, LOOK_TIMEOUT_MS)
            self._answered_at = time.monotonic()
        except kafka_errors.KafkaError as error:
            if not getattr(error, "retriable", False) and not isinstance(
                error, kafka_errors.KafkaTimeoutError
            ):
                raise translate_error(error, "Asking for offsets") from error

    @property
    @override
    def answered_at(self) -> float:
        return self._answered_at

    @override
    def lags(self) -> dict[Place, int]:
        found = {}
        for tp, end in self._ends.items():
            with contextlib.suppress(kafka_errors.KafkaError):
                position = self._consumer.position(tp, timeout_ms=0)
                if position is not None:
                    found[tp.topic, tp.partition] = max(0, end - position)
        return found

    def close(self) -> None:
        """Give up the connections."""
        with contextlib.suppress(kafka_errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=1000)


def _record(found: Any) -> InputRecord:
    return InputRecord(found.topic, found.partition, found.offset, found.timestamp, found.key, found.value)
