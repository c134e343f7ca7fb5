# ruff: noqa: ANN401  # kafka-python is untyped
"""Publishes outcomes and offsets in one Kafka transaction; replaces its producer whenever in doubt."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata
from typing_extensions import override

from streaming.broker.admin import Topic
from streaming.broker.connection import CLIENT_OPTIONS, client_config, translate_error
from streaming.broker.deadline import DeadlinePassedError, DeadlineThread
from streaming.errors import BrokerUnavailable, PublishFailed
from streaming.ports import GroupMetadata, Sink
from streaming.records import OutputRecord
from streaming.settings.load import Settings

# 256 KiB and a linger that the flush cuts short: 3x the records/s of the defaults.
BATCH_BYTES = 262_144
LINGER_MS = 5
# Room for a dead letter as large as any topic takes; the topic's own limit is what counts.
MAX_REQUEST_BYTES = 110 * 1024 * 1024


class TransactionalProducer(Sink):
    """The output topics and the group's offsets.

    Any trouble ends the producer: abort, epoch bumps and half-known outcomes differ from case to
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
        self._thread: DeadlineThread | None = None
        self._producer: Any = None

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
        producer = KafkaProducer(
            **config,
            **CLIENT_OPTIONS,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=bridge.transaction_timeout_ms,
            delivery_timeout_ms=int(max(bridge.transaction_deadline_s, 1) * 1000)
            + config["request_timeout_ms"],
            max_block_ms=config["request_timeout_ms"],
            retry_backoff_ms=2,  # so long, by default 100 ms, the end of the transaction before is waited for
            batch_size=BATCH_BYTES,
            linger_ms=LINGER_MS,
            max_request_size=MAX_REQUEST_BYTES,
            allow_auto_create_topics=False,
        )
        try:
            producer.init_transactions()
        except BaseException:
            _drop(producer)
            raise
        if thread.is_abandoned:
            _drop(producer)
        return producer

    @override
    def publish(
        self, outputs: Sequence[OutputRecord], offsets: Mapping[int, int], membership: GroupMetadata
    ) -> None:
        if self._thread is None or self._producer is None:
            raise PublishFailed("There is no producer.")
        thread, producer = self._thread, self._producer
        limit_s = self._settings.bridge.transaction_deadline_s
        try:
            thread.call(lambda: self._transact(producer, outputs, offsets, membership), limit_s)
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
        offsets: Mapping[int, int],
        membership: GroupMetadata,
    ) -> None:
        begun = time.monotonic()
        deadline = begun + self._settings.bridge.transaction_deadline_s
        producer.begin_transaction()
        futures = [self._send(producer, output) for output in outputs]
        sent = time.monotonic()
        producer.flush(max(0.0, deadline - sent))
        for future in futures:
            # commit_transaction() can succeed after sends have failed: look at each first.
            future.get(max(0.0, deadline - time.monotonic()))
        acknowledged = time.monotonic()
        positions = {
            TopicPartition(self._source, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
        }
        producer.send_offsets_to_transaction(positions, membership)
        offsets_taken = time.monotonic()
        producer.commit_transaction()
        self._spent("send", sent - begun)
        self._spent("acknowledge", acknowledged - sent)
        self._spent("offsets", offsets_taken - acknowledged)
        self._spent("commit", time.monotonic() - offsets_taken)

    def _send(self, producer: Any, output: OutputRecord) -> Any:
        # The partition of the input is kept, so the order within a partition and a key is.
        sender = self._topics_by_kind[output.kind]
        return producer.send(
            sender.name,
            value=output.value,
            key=output.key,
            headers=output.headers,
            partition=output.partition % sender.partitions,
        )

    def _discard(self) -> None:
        producer, thread = self._producer, self._thread
        self._producer = self._thread = None
        if thread is not None:
            thread.end()
        if producer is not None:
            _drop(producer)

    @override
    def close(self) -> None:
        self._discard()


def _drop(producer: Any) -> None:
    # With records in flight a close without patience raises, and that is what is wanted here.
    with contextlib.suppress(Exception):
        producer.close(timeout=0)
    with contextlib.suppress(Exception):
        # That close gives up at its flush: end the I/O thread too, and keep the finalizer from trying again.
        producer._sender.force_close()
        producer._closed = True
