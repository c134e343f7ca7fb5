# ruff: noqa: ANN401  # kafka-python is untyped
"""Publishes outcomes and offsets in one Kafka transaction; replaces its producer after any failure."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata
from typing_extensions import override

from streaming.broker.admin import Topic
from streaming.broker.compat import kafka_internals
from streaming.broker.compat.deadline import DeadlinePassedError, DeadlineThread
from streaming.broker.connection import CLIENT_OPTIONS, client_config, translate_error
from streaming.broker.group_snapshot import GroupSnapshot
from streaming.broker.start_offsets import TOPIC_ID
from streaming.errors import (
    BrokerRefused,
    BrokerUnavailable,
    MessageTooLarge,
    PublishFailed,
    StreamingError,
    TopicsChanged,
)
from streaming.ports import GroupMetadata, Sink
from streaming.records import NextOffset, OutputRecord
from streaming.settings.load import Settings

# 256 KiB and a linger that the flush cuts short: 3x the records/s of the defaults.
BATCH_BYTES = 262_144
LINGER_MS = 5
SMALLEST_BATCH_BYTES = 1024
# Room for a dead letter as large as any topic takes; the topic's own limit is what counts.
MAX_REQUEST_BYTES = 110 * 1024 * 1024


class TransactionalProducer(Sink):
    """The output topics and the group's offsets.

    Any failure ends the producer: abort, epoch bumps and half-known outcomes differ from case to
    case in kafka-python, while a new producer under the same id always aborts what was open.

    Parameters
    ----------
    settings : Settings
    transactional_id : str
        Identity that aborts its predecessor's open transaction and fences its predecessor.
    source : str
        Topic whose offsets are committed.
    topics_by_kind : mapping of str to Topic
        Kind of output to its topic.
    spent : callable
        Told a stage and the seconds spent in it.
    """

    def __init__(
        self,
        settings: Settings,
        transactional_id: str,
        source: str,
        topics_by_kind: Mapping[str, Topic],
        spent: Callable[[str, float], None] = lambda stage, seconds: None,
    ) -> None:
        self._settings = settings
        self._transactional_id = transactional_id
        self._source = source
        self._topics_by_kind = dict(topics_by_kind)
        self._spent = spent
        self._batch_bytes = BATCH_BYTES
        self._known_servers: list[str] = []
        self._thread: DeadlineThread | None = None
        self._producer: Any = None

    def use_topics(self, topics_by_kind: Mapping[str, Topic], max_batch_bytes: int | None) -> None:
        """Replace the topics and the largest batch that all of them take, from the next `start` on.

        Parameters
        ----------
        topics_by_kind : mapping of str to Topic
        max_batch_bytes : int or None
            None where the broker does not tell: then the limit is found by halving after each refusal.
        """
        self._topics_by_kind = dict(topics_by_kind)
        if max_batch_bytes is not None:
            self._batch_bytes = max(1, min(BATCH_BYTES, max_batch_bytes))

    @override
    def start(self) -> None:
        self._discard()
        thread = DeadlineThread("producer")
        self._thread = thread
        limit_s = self._settings.kafka.request_timeout_s
        try:
            # Connecting and initialising are each limited; the sum and a little is the last resort.
            self._producer = thread.call(lambda: self._open(thread), 2 * limit_s + 2)
        except DeadlinePassedError as error:
            raise BrokerUnavailable(f"Starting a producer: {error}") from error
        except kafka_errors.KafkaError as error:
            raise translate_error(error, "Starting a producer") from error

    def _open(self, thread: DeadlineThread) -> Any:
        bridge = self._settings.bridge
        config = client_config(self._settings.kafka, self._transactional_id)
        # A broker of those given at the start may be down while the cluster is well.
        config["bootstrap_servers"] = [*self._known_servers, *config["bootstrap_servers"]]
        producer = KafkaProducer(
            **config,
            **CLIENT_OPTIONS,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=bridge.transaction_timeout_ms,
            delivery_timeout_ms=int(max(bridge.transaction_deadline_s, 1) * 1000)
            + config["request_timeout_ms"],
            max_block_ms=config["request_timeout_ms"],
            retry_backoff_ms=2,  # how often it asks whether the transaction before has ended; default 100
            batch_size=self._batch_bytes,
            linger_ms=LINGER_MS,
            max_request_size=MAX_REQUEST_BYTES,
            allow_auto_create_topics=False,
        )
        try:
            kafka_internals.prepare_producer(producer)
            producer.init_transactions()
        except kafka_errors.KafkaTimeoutError as error:
            kafka_internals.force_close(producer)
            raise BrokerUnavailable(
                "The broker answers, but offers no transaction coordinator: its transaction log wants "
                "transaction.state.log.replication.factor copies (3 by default), more than there are "
                "brokers, or the log's leader is away."
            ) from error
        except BaseException:
            kafka_internals.force_close(producer)
            raise
        if thread.is_abandoned:
            kafka_internals.force_close(producer)
        return producer

    @override
    def publish(
        self, outputs: Sequence[OutputRecord], offsets: Mapping[int, NextOffset], metadata: GroupMetadata
    ) -> None:
        if self._thread is None or self._producer is None:
            raise PublishFailed("There is no producer.")
        thread, producer = self._thread, self._producer
        limit_s = self._settings.bridge.transaction_deadline_s
        try:
            thread.call(lambda: self._transact(producer, outputs, offsets, metadata), limit_s)
        except DeadlinePassedError as error:
            self._discard()
            raise PublishFailed(f"Publishing: {error}") from error
        except (kafka_errors.KafkaError, RuntimeError) as error:
            self._discard()
            raise translate_error(error, "Publishing") from error

    def _transact(
        self,
        producer: Any,
        outputs: Sequence[OutputRecord],
        offsets: Mapping[int, NextOffset],
        metadata: GroupMetadata,
    ) -> None:
        begun = time.monotonic()
        deadline = begun + self._settings.bridge.transaction_deadline_s
        producer.begin_transaction()
        futures = [self._send(producer, output) for output in outputs]
        sent = time.monotonic()
        _flush(producer, deadline - sent)
        self._check(outputs, futures, deadline)
        acknowledged = time.monotonic()
        self._send_offsets(producer, offsets, metadata)
        offsets_taken = time.monotonic()
        producer.commit_transaction()
        self._spent("send", sent - begun)
        self._spent("acknowledge", acknowledged - sent)
        self._spent("offsets", offsets_taken - acknowledged)
        self._spent("commit", time.monotonic() - offsets_taken)

    def _check(self, outputs: Sequence[OutputRecord], futures: Sequence[Any], deadline: float) -> None:
        # commit_transaction() can succeed after sends have failed: check each first.
        for output, future in zip(outputs, futures, strict=True):
            try:
                future.get(max(0.0, deadline - time.monotonic()))
            except kafka_errors.KafkaError as error:
                raise self._explain(error, self._find_invalid(outputs, error) or output) from error

    def _find_invalid(
        self, outputs: Sequence[OutputRecord], error: kafka_errors.KafkaError
    ) -> OutputRecord | None:
        """Return the record without key where a batch was refused as invalid: no error names it."""
        if not _is_invalid(error):
            return None
        return next((output for output in outputs if output.key is None), None)

    def _send_offsets(
        self, producer: Any, offsets: Mapping[int, NextOffset], metadata: GroupMetadata
    ) -> None:
        snapshot = metadata
        assert isinstance(snapshot, GroupSnapshot)  # what this folder hands out
        note = TOPIC_ID + snapshot.topic_id if snapshot.topic_id else ""
        positions = {
            TopicPartition(self._source, partition): OffsetAndMetadata(after.offset, note, after.leader_epoch)
            for partition, after in offsets.items()
        }
        producer.send_offsets_to_transaction(positions, snapshot.metadata)

    def _send(self, producer: Any, output: OutputRecord) -> Any:
        # The partition of the input is kept, so the order within a partition and a key is.
        topic = self._topics_by_kind[output.kind]
        try:
            return producer.send(
                topic.name,
                value=output.value,
                key=output.key,
                headers=output.headers,
                partition=output.partition % topic.partitions,
            )
        except (AssertionError, ValueError) as error:
            # Made again with fewer partitions while we run, or about to appear.
            raise TopicsChanged(f"{topic.name} has no partition for {_describe(output)}.") from error

    def _explain(self, error: kafka_errors.KafkaError, output: OutputRecord) -> StreamingError:
        topic = self._topics_by_kind[output.kind].name
        if _is_invalid(error):
            reason = (
                "a compacted topic takes no record without key: give the records keys, or set its "
                "cleanup.policy to delete"
                if output.key is None
                else "see the broker's log"
            )
            return BrokerRefused(f"Topic {topic} refuses {_describe(output)} as invalid; {reason}.")
        translated = translate_error(error, f"Publishing {_describe(output)} to {topic}")
        if isinstance(translated, MessageTooLarge):
            self._batch_bytes = max(SMALLEST_BATCH_BYTES, self._batch_bytes // 2)
        return translated

    def _discard(self) -> None:
        producer, thread = self._producer, self._thread
        self._producer = self._thread = None
        if thread is not None:
            thread.end()
        if producer is not None:
            self._known_servers = kafka_internals.known_servers(producer)
            kafka_internals.force_close(producer)

    @override
    def close(self) -> None:
        self._discard()


def _is_invalid(error: kafka_errors.KafkaError) -> bool:
    # The other records of its batch get a bare KafkaError.
    return isinstance(error, kafka_errors.InvalidRecordError) or "invalid records" in str(error)


def _describe(output: OutputRecord) -> str:
    return f"the outcome of partition {output.partition}, offset {output.source_offset}"


def _flush(producer: Any, timeout_s: float) -> None:
    # "Future not done", after a batch was split: each future tells how it went.
    with contextlib.suppress(kafka_errors.UnknownError):
        producer.flush(max(0.0, timeout_s))
