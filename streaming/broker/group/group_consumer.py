# ruff: noqa: ANN401  # kafka-python is untyped
"""Reads the input topic as a member of a consumer group."""

import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import MemberState
from typing_extensions import override

from streaming.broker.compat import kafka_internals
from streaming.broker.compat.unreadable_batches import UnreadableBatchError
from streaming.broker.connection import (
    CLIENT_OPTIONS,
    client_config,
    retry_until_reached,
    translate_consumer_error,
)
from streaming.broker.group.group_snapshot import GroupSnapshot
from streaming.broker.group.partition_ends import PartitionEnds
from streaming.broker.group.start_finder import StartFinder
from streaming.broker.known_brokers import remember_brokers
from streaming.errors import BrokerUnavailable, NotInGroup, RecordsHeld
from streaming.ports import GroupMetadata, RebalanceListener, Source
from streaming.records import InputRecord
from streaming.settings.bridge import BridgeSettings
from streaming.settings.load import Settings

log = structlog.get_logger()

FETCH_MAX_BYTES = 16 * 1024 * 1024  # what the client may hold before poll() asks for it
# A member that joins has nothing else to do.
JOIN_POLL_MS = 500
# How soon new partitions, or a topic that was made again, are noticed.
METADATA_MAX_AGE_MS = 10_000
METADATA_TIMEOUT_MS = 3_000


class GroupConsumer(Source):
    """The input topic through kafka-python's consumer, raw bytes throughout.

    A deserializer that fails would make ``poll()`` spin for ever, so there is none.

    All partitions are revoked in each rebalance (range assignment, eager). kafka-python 3.0.12's cooperative
    assignor sends owned partitions without a generation and never clears them when they are lost, so that a
    member that returns is given partitions which their owner still holds, and the group accepts both commits.

    Parameters
    ----------
    settings : Settings
    on_skipped : callable
        Called with partition, reason and number of records that are gone undecided.
    """

    def __init__(
        self,
        settings: Settings,
        on_skipped: Callable[[int, str, int], None] = lambda partition, reason, records: None,
    ) -> None:
        self._settings = settings
        self._topic = settings.topics.input
        self._servers = settings.kafka.bootstrap_servers
        self._on_skipped = on_skipped
        self._consumer: Any = None
        self._is_paused = False
        self._held: set[int] = set()
        self._snapshot: GroupSnapshot | None = None  # under which everything that `poll` returned was fetched
        self._member_id = ""
        self._must_seek = False
        self._starts: StartFinder | None = None
        self._ends = PartitionEnds()

    @override
    def start(self, listener: RebalanceListener) -> None:
        bridge = self._settings.bridge
        self._consumer = retry_until_reached(
            lambda: self._connect(bridge), self._settings.kafka.connect_timeout_s, self._servers
        )
        kafka_internals.prepare_consumer(self._consumer, self._settings.kafka.max_decompressed_bytes)
        self._starts = StartFinder(self._settings, self._consumer, self._on_skipped)
        with contextlib.suppress(kafka_errors.KafkaError):  # without it, the group assigns twice
            kafka_internals.load_metadata(self._consumer, self._topic, METADATA_TIMEOUT_MS)
        self._consumer.subscribe([self._topic], listener=_Adapter(listener, self._forget_snapshot))

    def _connect(self, bridge: BridgeSettings) -> Any:
        return KafkaConsumer(
            **client_config(self._settings.kafka, f"bridge-{bridge.instance_id}"),
            **CLIENT_OPTIONS,
            group_id=bridge.group,
            group_instance_id=bridge.instance_id,
            partition_assignment_strategy=(RangePartitionAssignor,),
            # Not for the input's sake alone: it makes a newcomer wait for offsets in an open transaction.
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=bridge.session_timeout_ms,
            heartbeat_interval_ms=max(100, bridge.session_timeout_ms // 5),
            max_poll_interval_ms=bridge.max_poll_interval_ms,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            fetch_max_bytes=FETCH_MAX_BYTES,
            retry_backoff_ms=20,
            allow_auto_create_topics=False,
        )

    def _forget_snapshot(self) -> None:
        # What was in flight has been finished or dropped: nothing is committed before new positions are set.
        self._snapshot = None

    @override
    def poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        if self._is_paused:
            self.pause()  # partitions may have come since
        if self._consumer.group_metadata().state != MemberState.STABLE:
            timeout_ms = max(timeout_ms, JOIN_POLL_MS)
        found = self._fetch(timeout_ms, max_records)
        kafka_internals.keep_joining(self._consumer)
        self._notice_rebalance()
        if self._must_seek or self._is_made_again():
            try:
                self.rewind()
            except BrokerUnavailable as error:
                log.warning("no_start_offsets", error=str(error))
            return []
        return [_record(one) for ones in found.values() for one in ones]

    def _fetch(self, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, Any]:
        try:
            found: Mapping[TopicPartition, Any] = self._consumer.poll(
                timeout_ms=timeout_ms, max_records=max_records
            )
            return found
        except (kafka_errors.NoOffsetForPartitionError, kafka_errors.OffsetOutOfRangeError):
            self._must_seek = True
        except UnreadableBatchError as error:
            raise RecordsHeld([error.held]) from error
        except kafka_errors.LogTruncationError as error:
            self._handle_truncation(error)
        except kafka_errors.KafkaError as error:
            if not getattr(error, "retriable", False):
                raise translate_consumer_error(error, f"Reading {self._topic}") from error
        return {}

    def _handle_truncation(self, error: kafka_errors.LogTruncationError) -> None:
        assert self._starts is not None
        for tp, divergent in error.divergent_offsets.items():
            position = self._consumer.position(tp, timeout_ms=0) or 0
            agreed = divergent.offset if divergent is not None else None
            start = self._starts.after_truncation(tp, position, agreed)
            kafka_internals.seek(self._consumer, tp, start.offset, -1)

    def _notice_rebalance(self) -> None:
        """Make sure that nothing fetched in one generation is used in another.

        Evicted and back, a consumer has another member id; a generation may also pass it by. kafka-python
        keeps its positions in partitions that it gets again, and does not always call them lost, although
        others have worked on them meanwhile.
        """
        metadata = self._consumer.group_metadata()
        if metadata.state != MemberState.STABLE:
            return
        before = self._snapshot
        if before is not None and _generation(before.metadata) == _generation(metadata):
            return
        self._must_seek = True
        self._snapshot = None
        self._member_id = metadata.member_id
        if before is not None:
            raise NotInGroup("The group had given the bridge up; it has joined anew.")

    def _is_made_again(self) -> bool:
        if self._snapshot is None:
            return False
        topic_id = kafka_internals.topic_id(self._consumer, self._topic)
        return bool(topic_id) and topic_id != self._snapshot.topic_id

    @override
    def rewind(self) -> None:
        metadata = self._consumer.group_metadata()
        topic_id = kafka_internals.topic_id(self._consumer, self._topic)
        tps = sorted(self._consumer.assignment())
        starts = self._starts.find(tps, topic_id) if tps and self._starts else {}
        for tp, start in starts.items():
            kafka_internals.seek(self._consumer, tp, start.offset, start.leader_epoch)
        self._must_seek = False
        if metadata.state == MemberState.STABLE:
            self._member_id = metadata.member_id
            self._snapshot = GroupSnapshot(metadata, topic_id)

    @override
    def pause(self) -> None:
        self._is_paused = True
        self._consumer.pause(*self._consumer.assignment())

    @override
    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._consumer.resume(*(tp for tp in self._consumer.paused() if tp.partition not in self._held))

    @override
    def hold(self, partition: int) -> None:
        self._held.add(partition)
        tp = TopicPartition(self._topic, partition)
        if tp in self._consumer.assignment():
            self._consumer.pause(tp)

    @override
    def release(self, partition: int) -> None:
        self._held.discard(partition)
        tp = TopicPartition(self._topic, partition)
        if not self._is_paused and tp in self._consumer.assignment():
            self._consumer.resume(tp)

    @override
    def rejoin(self) -> None:
        kafka_internals.refresh_metadata(self._consumer)
        kafka_internals.request_rejoin(self._consumer)

    @property
    @override
    def member_id(self) -> str:
        return self._member_id

    @property
    @override
    def last_answer(self) -> float:
        heartbeat = kafka_internals.last_heartbeat(self._consumer)
        return min(heartbeat, self._ends.answered_at) if self._consumer.assignment() else heartbeat

    @property
    @override
    def has_joined(self) -> bool:
        try:
            self.group_metadata()
        except NotInGroup:
            return False
        return True

    @override
    def group_metadata(self) -> GroupMetadata:
        snapshot = self._snapshot
        # Without member id a commit counts as one from outside the group, which nothing fences; under
        # another generation than the one of the fetch, others may have done the same work.
        if snapshot is None or _generation(self._consumer.group_metadata()) != _generation(snapshot.metadata):
            raise NotInGroup("The bridge is not in its group now.")
        return snapshot.as_group_metadata()

    @override
    def lags(self) -> dict[int, int]:
        remember_brokers(self._servers, kafka_internals.known_servers(self._consumer))
        return self._ends.lags(self._consumer)

    @override
    def close(self) -> None:
        if self._consumer is not None:
            with contextlib.suppress(kafka_errors.KafkaError):
                self._consumer.close(autocommit=False, timeout_ms=1000)


def _generation(metadata: Any) -> tuple[str, int]:
    return metadata.member_id, metadata.generation_id


def _record(found: Any) -> InputRecord:
    return InputRecord(
        found.topic,
        found.partition,
        found.offset,
        found.timestamp,
        found.key,
        found.value,
        found.headers or (),
        found.leader_epoch,
    )


class _Adapter(ConsumerRebalanceListener):  # type: ignore[misc]  # the base is untyped
    """Hands kafka-python's rebalance calls on, partitions as numbers.

    They come on the consumer's I/O thread while the bridge's thread waits in ``poll()``: heartbeats
    stand still until they return, so the listener must return well within the session timeout.
    """

    def __init__(self, listener: RebalanceListener, after_loss: Callable[[], None]) -> None:
        self._listener = listener
        self._after_loss = after_loss

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._listener.on_assigned(_numbers(assigned))

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked:  # also called before the first join
            self._listener.on_revoked(_numbers(revoked))
        self._after_loss()

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self._listener.on_lost(_numbers(lost))
        self._after_loss()


def _numbers(tps: Collection[TopicPartition]) -> list[int]:
    return sorted(tp.partition for tp in tps)
