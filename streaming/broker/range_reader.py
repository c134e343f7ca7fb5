# ruff: noqa: ANN401  # kafka-python is untyped
"""Reads a range of a topic without joining a group: for redrive, backfill and reports."""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from streaming.broker.compat import kafka_internals
from streaming.broker.compat.unreadable_batches import UnreadableBatchError
from streaming.broker.connection import (
    CLIENT_OPTIONS,
    client_config,
    retry_until_reached,
    translate_consumer_error,
    translate_error,
)
from streaming.errors import BrokerUnavailable, CorruptInput, SettingsError
from streaming.records import InputRecord
from streaming.settings.sections import KafkaSettings

# A read fails when it gets no record for this long before the end of its range.
SILENCE_S = 60.0
# A position is known but after a seek that a fetch has yet to make good.
POSITION_MS = 1000

Offsets = dict[int, int]
"""Partition to offset."""


class RangeReader:
    """Reads topics from offset to offset, read_committed.

    Parameters
    ----------
    settings : KafkaSettings
    group : str, optional
        Whose committed offsets `committed` tells.
    """

    def __init__(self, settings: KafkaSettings, group: str | None = None) -> None:
        self._timeout_s = settings.request_timeout_s
        config = client_config(settings, "reader")
        self._consumer: Any = retry_until_reached(
            lambda: KafkaConsumer(
                **config,
                **CLIENT_OPTIONS,
                group_id=group,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
            ),
            settings.connect_timeout_s,
            settings.bootstrap_servers,
        )
        kafka_internals.prepare_consumer(self._consumer, settings.max_decompressed_bytes)

    def __enter__(self) -> "RangeReader":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(kafka_errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=1000)

    def resolve(self, topic: str, bound: str) -> Offsets:
        """Return where a bound lies in each partition.

        Parameters
        ----------
        topic : str
        bound : str
            ``earliest``, ``latest``, an offset (the same in each partition, cut to what is there),
            or a time in ISO 8601 (UTC where it names no zone): the first record produced then or later.

        Raises
        ------
        SettingsError
            If the bound is none of these.
        """
        tps = self._partitions_of(topic)
        first = self._list(self._consumer.beginning_offsets, tps)
        last = self._list(self._consumer.end_offsets, tps)
        if bound == "earliest":
            found = first
        elif bound == "latest":
            found = last
        elif bound.isdecimal():
            found = {tp: min(max(int(bound), first[tp]), last[tp]) for tp in tps}
        else:
            moment_ms = _moment_ms(bound)
            times = self._ask(self._consumer.offsets_for_times, dict.fromkeys(tps, moment_ms))
            found = {p: times[p].offset if times.get(p) else last[p] for p in tps}
        return {tp.partition: offset for tp, offset in found.items()}

    def _partitions_of(self, topic: str) -> list[TopicPartition]:
        partitions = _answered(lambda: self._consumer.partitions_for_topic(topic), f"Looking for {topic}")
        if not partitions:
            raise SettingsError(f"Topic {topic} does not exist.")
        return [TopicPartition(topic, number) for number in sorted(partitions)]

    def _list(self, question: Any, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = _answered(
            lambda: kafka_internals.list_offsets(question, tps, self._timeout_s * 1000),
            "Asking for offsets",
        )
        return found

    def _ask(self, question: Any, about: Any) -> Any:
        return _answered(lambda: question(about, timeout_ms=self._timeout_s * 1000), "Asking for offsets")

    def committed(self, topic: str) -> Offsets:
        """Return what the group has committed; partitions without a commit are left out."""
        found = {tp.partition: self._ask(self._consumer.committed, tp) for tp in self._partitions_of(topic)}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def read(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> Iterator[list[InputRecord]]:
        """Yield the records of a range, headers included, each partition in order.

        Raises
        ------
        BrokerUnavailable
            If nothing comes for a minute although the end is not reached.
        BrokerError
            If the broker refuses.
        """
        tps = [TopicPartition(topic, number) for number in starts if starts[number] < ends.get(number, 0)]
        if not tps:
            return
        self._consumer.assign(tps)
        for tp in tps:
            self._consumer.seek(tp, starts[tp.partition])
        silent_since = time.monotonic()
        while not all(self._has_read(tp, ends[tp.partition]) for tp in tps):
            found = _if_it_answers(lambda: self._consumer.poll(timeout_ms=500), f"Reading {topic}") or {}
            records = [
                _record(one) for ones in found.values() for one in ones if one.offset < ends[one.partition]
            ]
            if records:
                yield records
            if found:
                # Time the caller spends between polls is not counted: it may wait an hour for the service.
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > SILENCE_S:
                raise BrokerUnavailable(f"{topic} cannot be read to the end of the range: is the broker up?")

    def _has_read(self, tp: TopicPartition, end: int) -> bool:
        position = _if_it_answers(
            lambda: self._consumer.position(tp, timeout_ms=POSITION_MS), f"Reading {tp.topic}"
        )
        return position is not None and position >= end


def _answered(question: Callable[[], Any], doing: str) -> Any:
    try:
        return question()
    except kafka_errors.KafkaTimeoutError as error:
        raise BrokerUnavailable(f"{doing}: the broker does not answer in time.") from error
    except kafka_errors.KafkaError as error:
        raise translate_error(error, doing) from error


def _if_it_answers(question: Callable[[], Any], doing: str) -> Any:
    # A broker that restarts is waited for; the caller counts how long it has been silent.
    try:
        return question()
    except kafka_errors.KafkaError as error:
        if getattr(error, "retriable", False):
            return None
        raise translate_consumer_error(error, doing) from error
    except UnreadableBatchError as error:
        held = error.held
        raise CorruptInput(f"{doing}, partition {held.partition}: {error}. To do: {held.advice}") from error


def _record(found: Any) -> InputRecord:
    return InputRecord(
        found.topic,
        found.partition,
        found.offset,
        found.timestamp,
        found.key,
        found.value,
        [(name, value or b"") for name, value in found.headers],
    )


def _moment_ms(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return max(0, int(moment.timestamp() * 1000))  # Kafka's time begins in 1970
    except (ValueError, OverflowError) as error:
        message = f"{text!r} is no offset, no time like 2026-01-31T12:00:00 and neither earliest nor latest."
        raise SettingsError(message) from error
