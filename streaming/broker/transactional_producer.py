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

from streaming.broker.admin import Admin, Topic
from streaming.broker.compat import kafka_internals
from streaming.broker.compat.deadline import DeadlinePassedError, DeadlineThread
from streaming.broker.compat.grouped_sends import SentBatch, forbid_splitting, send_records
from streaming.broker.compat.transactions_v2 import use_transactions_v2
from streaming.broker.connection import CLIENT_OPTIONS, client_config, translate_error
from streaming.broker.group.group_snapshot import GroupSnapshot
from streaming.broker.group.start_offsets import TOPIC_ID
from streaming.broker.known_brokers import remember_brokers
from streaming.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    MessageTooLarge,
    PublishFailed,
    RecordsHeld,
    StreamingError,
    TopicsChanged,
)
from streaming.ports import GroupMetadata, Sink
from streaming.records import HeldRecord, NextOffset, OutputRecord
from streaming.settings.load import Settings

# 256 KiB and a linger that the flush cuts short: 3x the records/s of the defaults.
BATCH_BYTES = 262_144
LINGER_MS = 5
SMALLEST_BATCH_BYTES = 1024
# A leader is missing for a moment after each failure of a broker; the other partitions wait this long for it.
LEADER_PATIENCE_S, LOOK_S = 3.0, 0.5
# A call that has not gone through by then is tried again with a new producer.
BLOCK_S = 4.0
# How long the broker may take to tell which version of transactions it has.
FEATURES_S = 2.0
# Room for a dead letter as large as any topic takes; the topic's own limit is what counts.
MAX_REQUEST_BYTES = 110 * 1024 * 1024

_Groups = dict[TopicPartition, list[OutputRecord]]
"""Partition of the output to its records, in their order."""


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
        self._first_id = transactional_id
        self._stuck = 0  # transactions that wait for a leader, each under an id of its own
        self._source = source
        self._topics_by_kind = dict(topics_by_kind)
        self._spent = spent
        self._batch_bytes = BATCH_BYTES
        self._leaderless_since: dict[TopicPartition, float] = {}
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

    @property
    def _transactional_id(self) -> str:
        return f"{self._first_id}.{self._stuck}" if self._stuck else self._first_id

    @override
    def start(self) -> None:
        self._discard()
        thread = DeadlineThread("producer")
        self._thread = thread
        limit_s = self._settings.kafka.request_timeout_s
        try:
            # Each of the steps is limited; the sum and a little is the last resort.
            self._producer = thread.call(lambda: self._open(thread), 2 * limit_s + 2 * BLOCK_S + FEATURES_S)
        except DeadlinePassedError as error:
            raise BrokerUnavailable(f"Starting a producer: {error}") from error
        except kafka_errors.KafkaError as error:
            raise translate_error(error, "Starting a producer") from error

    def _open(self, thread: DeadlineThread) -> Any:
        producer = self._connect()
        try:
            kafka_internals.prepare_producer(producer)
            kafka_internals.forbid_epoch_bumps(producer)
            forbid_splitting(producer)
            producer.init_transactions()
            use_transactions_v2(producer, FEATURES_S)
            remember_brokers(self._settings.kafka.bootstrap_servers, kafka_internals.known_servers(producer))
            for topic in self._topics_by_kind.values():
                with contextlib.suppress(kafka_errors.KafkaError):  # the first send will tell
                    producer.partitions_for(topic.name)
        except kafka_errors.KafkaTimeoutError as error:
            kafka_internals.force_close(producer)
            raise self._explain_no_start() from error
        except BaseException:
            kafka_internals.force_close(producer)
            raise
        if thread.is_abandoned:
            kafka_internals.force_close(producer)
        return producer

    def _connect(self) -> Any:
        bridge = self._settings.bridge
        config = client_config(self._settings.kafka, self._transactional_id)
        return KafkaProducer(
            **config,
            **CLIENT_OPTIONS,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=bridge.transaction_timeout_ms,
            delivery_timeout_ms=int(max(bridge.transaction_deadline_s, 1) * 1000)
            + config["request_timeout_ms"],
            max_block_ms=int(min(self._settings.kafka.request_timeout_s, BLOCK_S) * 1000),
            retry_backoff_ms=2,  # how often it asks whether the transaction before has ended; default 100
            batch_size=self._batch_bytes,
            linger_ms=LINGER_MS,
            max_request_size=MAX_REQUEST_BYTES,
            allow_auto_create_topics=False,
        )

    def _explain_no_start(self) -> BrokerUnavailable:
        """Return why no producer could start; make the next one use another id where that helps.

        A transaction that is being committed or aborted ends when each of its partitions has taken the news.
        While one has no leader, its transactional id is of no use, but nothing can change what becomes of it:
        the consumer waits for its offsets before it goes on, so going on under another id stays exact.
        """
        waiting = self._transactional_id
        with contextlib.suppress(BrokerError), self._admin() as admin:
            if admin.transaction_is_decided(waiting):
                self._stuck += 1
                return BrokerUnavailable(
                    f"The last transaction of {waiting} cannot end while a partition has no leader: going on "
                    f"under the transactional id {self._transactional_id}."
                )
        return BrokerUnavailable(
            "The broker answers, but offers no transaction coordinator: its transaction log wants "
            "transaction.state.log.replication.factor copies (3 by default), more than there are "
            "brokers, or the log's leader is away."
        )

    def _admin(self) -> Admin:
        return Admin(self._settings.kafka.model_copy(update={"connect_timeout_s": BLOCK_S}))

    @override
    def publish(
        self, outputs: Sequence[OutputRecord], offsets: Mapping[int, NextOffset], metadata: GroupMetadata
    ) -> None:
        if self._thread is None or self._producer is None:
            raise PublishFailed("There is no producer.")
        thread, producer = self._thread, self._producer
        groups = self._group(outputs)
        self._wait_for_leaders(groups)
        limit_s = self._settings.bridge.transaction_deadline_s
        try:
            thread.call(lambda: self._transact(producer, groups, offsets, metadata), limit_s)
        except DeadlinePassedError as error:
            self._discard()
            raise PublishFailed(f"Publishing: {error}") from error
        except RecordsHeld:
            self._discard()
            raise
        except (kafka_errors.KafkaError, RuntimeError) as error:
            self._discard()
            raise self._shrink_after(translate_error(error, "Publishing")) from error

    def _group(self, outputs: Sequence[OutputRecord]) -> _Groups:
        # The partition of the input is kept, so the order within a partition and a key is.
        by_source: dict[tuple[str, int], list[OutputRecord]] = {}
        for output in outputs:
            by_source.setdefault((output.kind, output.partition), []).append(output)
        groups: _Groups = {}
        for (kind, partition), ones in by_source.items():
            topic = self._topics_by_kind[kind]
            tp = TopicPartition(topic.name, partition % topic.partitions)
            groups.setdefault(tp, []).extend(ones)
        return groups

    def _transact(
        self, producer: Any, groups: _Groups, offsets: Mapping[int, NextOffset], metadata: GroupMetadata
    ) -> None:
        begun = time.monotonic()
        deadline = begun + self._settings.bridge.transaction_deadline_s
        producer.begin_transaction()
        batches = self._send(producer, groups)
        sent = time.monotonic()
        self._flush(producer, groups, deadline)
        self._check(batches, groups, deadline)
        acknowledged = time.monotonic()
        self._send_offsets(producer, offsets, metadata)
        offsets_taken = time.monotonic()
        producer.commit_transaction()
        self._spent("send", sent - begun)
        self._spent("acknowledge", acknowledged - sent)
        self._spent("offsets", offsets_taken - acknowledged)
        self._spent("commit", time.monotonic() - offsets_taken)

    def _send(self, producer: Any, groups: _Groups) -> list[SentBatch]:
        batches: list[SentBatch] = []
        for tp, outputs in groups.items():
            try:
                batches += send_records(producer, tp, outputs)
            except (AssertionError, ValueError) as error:
                # Made again with fewer partitions while we run, or about to appear.
                raise TopicsChanged(f"{tp.topic} has no partition for {_describe(outputs[0])}.") from error
        return batches

    def _flush(self, producer: Any, groups: _Groups, deadline: float) -> None:
        """Wait for the acknowledgements, but for a partition without a leader only so long."""
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                producer.flush(min(left_s, LOOK_S))
            except kafka_errors.KafkaTimeoutError:
                if leaderless := self._find_leaderless(groups):
                    self._raise_if_long(leaderless)
            else:
                return

    def _wait_for_leaders(self, groups: _Groups) -> None:
        """Wait a while for the leaders of the outputs' partitions.

        A transaction with a record for a partition without one could not end before it is back.

        Raises
        ------
        RecordsHeld
            If partitions have had no leader for `LEADER_PATIENCE_S`.
        """
        while leaderless := self._find_leaderless(groups):
            self._raise_if_long(leaderless)
            kafka_internals.refresh_metadata(self._producer)
            time.sleep(LOOK_S / 5)

    def _find_leaderless(self, groups: _Groups) -> list[HeldRecord]:
        """Return the first record of each input partition whose output partition has no leader."""
        producer, since, now = self._producer, self._leaderless_since, time.monotonic()
        for tp in [tp for tp in since if kafka_internals.has_leader(producer, tp)]:
            del since[tp]
        found: dict[int, HeldRecord] = {}
        for tp, outputs in groups.items():
            if kafka_internals.has_leader(producer, tp):
                continue
            since.setdefault(tp, now)
            error = f"{tp.topic}, partition {tp.partition} has no leader"
            for output in outputs:
                record = HeldRecord(output.partition, output.source_offset, error, "leaderless")
                found[output.partition] = min(record, found.get(output.partition, record))
        return list(found.values())

    def _raise_if_long(self, leaderless: list[HeldRecord]) -> None:
        # One that is missing for long is reason enough not to wait for others.
        if time.monotonic() - min(self._leaderless_since.values()) >= LEADER_PATIENCE_S:
            raise RecordsHeld(leaderless)

    def _check(self, batches: Sequence[SentBatch], groups: _Groups, deadline: float) -> None:
        # commit_transaction() can succeed after sends have failed: check each first.
        for batch in batches:
            refusal = batch.wait(max(0.0, deadline - time.monotonic()))
            if refusal is None:
                continue
            output, error = refusal
            # Where a batch was refused as invalid, no error names the record without key that caused it.
            everything = (one for outputs in groups.values() for one in outputs)
            keyless = (one for one in everything if one.key is None and _is_invalid(error))
            raise self._explain(error, next(keyless, output)) from error

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

    def _explain(self, error: Exception, output: OutputRecord) -> StreamingError:
        topic = self._topics_by_kind[output.kind].name
        if _is_invalid(error):
            reason = (
                "a compacted topic takes no record without key: give the records keys, or set its "
                "cleanup.policy to delete"
                if output.key is None
                else "see the broker's log"
            )
            return BrokerRefused(f"Topic {topic} refuses {_describe(output)} as invalid; {reason}.")
        return self._shrink_after(translate_error(error, f"Publishing {_describe(output)} to {topic}"))

    def _shrink_after(self, error: StreamingError) -> StreamingError:
        """Return `error`; let the next producer's batches be half as large where it says too large."""
        if isinstance(error, MessageTooLarge):
            self._batch_bytes = max(SMALLEST_BATCH_BYTES, self._batch_bytes // 2)
        return error

    def _discard(self) -> None:
        producer, thread = self._producer, self._thread
        self._producer = self._thread = None
        if thread is not None:
            thread.end()
        if producer is not None:
            kafka_internals.force_close(producer)

    @override
    def close(self) -> None:
        self._discard()


def _is_invalid(error: Exception) -> bool:
    # The other records of its batch get a bare KafkaError.
    return isinstance(error, kafka_errors.InvalidRecordError) or "invalid records" in str(error)


def _describe(output: OutputRecord) -> str:
    return f"the outcome of partition {output.partition}, offset {output.source_offset}"
