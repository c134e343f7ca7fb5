# ruff: noqa: ANN401  # kafka-python is untyped
"""Reads the input topic as a member of a consumer group."""

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import MemberState
from typing_extensions import override

from streaming.broker.compat import kafka_internals
from streaming.broker.connection import CLIENT_OPTIONS, client_config, translate_consumer_error
from streaming.broker.decided_offsets import find_decided_offsets
from streaming.broker.group_snapshot import GroupSnapshot
from streaming.broker.start_offsets import (
    TOPIC_ID,
    CommittedOffset,
    Log,
    StartOffset,
    choose_start,
    describe_truncation,
)
from streaming.errors import BrokerUnavailable, NotInGroup, OffsetGap
from streaming.ports import GroupMetadata, RebalanceListener, Source
from streaming.records import InputRecord
from streaming.settings.load import Settings

log = structlog.get_logger()

FETCH_MAX_BYTES = 16 * 1024 * 1024  # what the client may hold before poll() asks for it
# While paused the loop waits anyway, but a broker that does not answer must not hold it up for long.
ENDS_EVERY_S, ENDS_TIMEOUT_MS = 3.0, 500
# A member that joins has nothing else to do.
JOIN_POLL_MS = 500
# How soon new partitions, or a topic that was made again, are noticed.
METADATA_MAX_AGE_MS = 10_000
METADATA_TIMEOUT_MS = 3_000
# After a broker's failure the new leader may know a lower end for a moment.
TRUNCATION_PATIENCE_S = 15.0


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
        self._on_skipped = on_skipped
        self._consumer: Any = None
        self._is_paused = False
        self._held: set[int] = set()
        self._snapshot: GroupSnapshot | None = None  # under which everything that `poll` returned was fetched
        self._member_id = ""
        self._must_seek = False
        self._too_short_since: float | None = None
        self._asked_ends: dict[TopicPartition, int] = {}
        self._asked_at = float("-inf")
        self._answered_at = float("-inf")

    @override
    def start(self, listener: RebalanceListener) -> None:
        bridge = self._settings.bridge
        self._consumer = KafkaConsumer(
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
        kafka_internals.prepare_consumer(self._consumer)
        with contextlib.suppress(kafka_errors.KafkaError):  # without it, the group assigns twice
            kafka_internals.load_metadata(self._consumer, self._topic, METADATA_TIMEOUT_MS)
        self._consumer.subscribe([self._topic], listener=_Adapter(listener, self._forget_snapshot))

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
            self._seek_if_it_answers()
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
        except kafka_errors.LogTruncationError as error:
            self._handle_truncation(error)
        except kafka_errors.KafkaError as error:
            if not getattr(error, "retriable", False):
                raise translate_consumer_error(error, f"Reading {self._topic}") from error
        return {}

    def _handle_truncation(self, error: kafka_errors.LogTruncationError) -> None:
        for partition, divergent in error.divergent_offsets.items():
            position = self._consumer.position(partition, timeout_ms=0) or 0
            first = self._ask(self._consumer.beginning_offsets, [partition])[partition]
            end = self._ask(self._consumer.end_offsets, [partition])[partition]
            agreed = max(first, divergent.offset if divergent is not None else first)
            place = Log(self._topic, partition.partition, first, end)
            if not self._settings.bridge.accept_gap:
                raise OffsetGap(describe_truncation(place, position, agreed)) from error
            self._report(place, position, StartOffset(agreed, reason="truncated"))
            kafka_internals.seek(self._consumer, partition, agreed, -1)

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

    def _seek_if_it_answers(self) -> None:
        try:
            self.rewind()
        except BrokerUnavailable as error:
            log.warning("no_start_offsets", error=str(error))

    @override
    def rewind(self) -> None:
        metadata = self._consumer.group_metadata()
        topic_id = kafka_internals.topic_id(self._consumer, self._topic)
        places = sorted(self._consumer.assignment())
        starts = self._choose_starts(places, topic_id) if places else {}
        for place, start in starts.items():
            kafka_internals.seek(self._consumer, place, start.offset, start.leader_epoch)
        self._must_seek = False
        if metadata.state == MemberState.STABLE:
            self._member_id = metadata.member_id
            self._snapshot = GroupSnapshot(metadata, topic_id)

    def _choose_starts(
        self, places: list[TopicPartition], topic_id: str
    ) -> dict[TopicPartition, StartOffset]:
        committed = {place: self._read_committed(place) for place in places}
        first = self._ask(self._consumer.beginning_offsets, places)
        end = self._ask(self._consumer.end_offsets, places)
        missing = [place.partition for place, offset in committed.items() if offset is None]
        decided = find_decided_offsets(self._settings, missing) if missing else {}
        starts = {}
        for place in places:
            partition = Log(self._topic, place.partition, first[place], end[place], topic_id)
            start = self._choose_patiently(partition, committed[place], decided.get(place.partition))
            known = committed[place]
            self._report(partition, known.offset if known else decided.get(place.partition, 0), start)
            starts[place] = start
        return starts

    def _choose_patiently(
        self, place: Log, committed: CommittedOffset | None, decided_until: int | None
    ) -> StartOffset:
        accept_gap = self._settings.bridge.accept_gap
        try:
            start = choose_start(place, committed, decided_until, accept_gap=accept_gap)
        except OffsetGap as error:
            now = time.monotonic()
            self._too_short_since = self._too_short_since or now
            if now - self._too_short_since < TRUNCATION_PATIENCE_S:
                raise BrokerUnavailable(f"Waiting for the leader: {error}") from error
            raise
        self._too_short_since = None
        return start

    def _report(self, place: Log, expected: int, start: StartOffset) -> None:
        if start.reason is None:
            return
        write = log.error if start.skipped or start.reason == "truncated" else log.warning
        write(
            "offset_jump",
            topic=place.topic,
            partition=place.partition,
            reason=start.reason,
            expected_offset=expected,
            available_from=place.first,
            goes_on_from=start.offset,
            records_gone_undecided=start.skipped,
        )
        if start.skipped:
            self._on_skipped(place.partition, start.reason, start.skipped)

    def _read_committed(self, place: TopicPartition) -> CommittedOffset | None:
        found = self._ask(lambda one, timeout_ms: self._consumer.committed(one, True, timeout_ms), place)
        if found is None:
            return None
        note = found.metadata or ""
        topic_id = note.removeprefix(TOPIC_ID) if note.startswith(TOPIC_ID) else ""
        epoch = found.leader_epoch if found.leader_epoch is not None else -1
        return CommittedOffset(found.offset, epoch, topic_id)

    def _ask(self, question: Any, about: Any) -> Any:
        try:
            return question(about, timeout_ms=self._settings.kafka.request_timeout_s * 1000)
        except kafka_errors.KafkaError as error:
            raise BrokerUnavailable(
                f"Asking for the offsets of {self._topic}: {type(error).__name__}"
            ) from error

    @override
    def pause(self) -> None:
        self._is_paused = True
        self._consumer.pause(*self._consumer.assignment())

    @override
    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._consumer.resume(
                *(place for place in self._consumer.paused() if place.partition not in self._held)
            )

    @override
    def hold(self, partition: int) -> None:
        self._held.add(partition)
        place = TopicPartition(self._topic, partition)
        if place in self._consumer.assignment():
            self._consumer.pause(place)

    @override
    def release(self, partition: int) -> None:
        self._held.discard(partition)
        place = TopicPartition(self._topic, partition)
        if not self._is_paused and place in self._consumer.assignment():
            self._consumer.resume(place)

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
        return min(heartbeat, self._answered_at) if self._consumer.assignment() else heartbeat

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
        found = {}
        assigned = self._consumer.assignment()
        if assigned:
            self._ask_for_ends(assigned)
        for place in assigned:
            ends = (self._consumer.highwater(place), self._asked_ends.get(place))
            end = max((end for end in ends if end is not None), default=None)
            with contextlib.suppress(kafka_errors.KafkaError):
                position = self._consumer.position(place, timeout_ms=0)
                if end is not None and position is not None:
                    found[place.partition] = max(0, end - position)
        return found

    def _ask_for_ends(self, assigned: Collection[TopicPartition]) -> None:
        # Fetches tell where partitions end, but not while paused, and nothing tells whether a leader that
        # has no new records still answers.
        now = time.monotonic()
        if now - self._asked_at < ENDS_EVERY_S:
            return
        self._asked_at = now
        with contextlib.suppress(kafka_errors.KafkaError):
            self._asked_ends = self._consumer.end_offsets(list(assigned), timeout_ms=ENDS_TIMEOUT_MS)
            self._answered_at = time.monotonic()

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


def _numbers(places: Collection[TopicPartition]) -> list[int]:
    return sorted(place.partition for place in places)
