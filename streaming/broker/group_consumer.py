# ruff: noqa: ANN401  # kafka-python is untyped
"""Reads the input topic as a member of a consumer group."""

import contextlib
import time
from collections.abc import Collection
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import (
    CooperativeStickyAssignor,
)
from kafka.structs import MemberState
from typing_extensions import override

from streaming.broker.connection import CLIENT_OPTIONS, client_config, translate_consumer_error
from streaming.errors import BrokerUnavailable, NotInGroup
from streaming.ports import GroupMetadata, RebalanceListener, Source
from streaming.records import InputRecord
from streaming.settings.load import Settings

FETCH_MAX_BYTES = 16 * 1024 * 1024  # what the client may hold before poll() asks for it
# While paused the loop waits anyway, but a broker that does not answer must not hold it up for long.
ENDS_EVERY_S, ENDS_TIMEOUT_MS = 3.0, 500


class GroupConsumer(Source):
    """The input topic through kafka-python's consumer, raw bytes throughout.

    A deserializer that fails would make ``poll()`` spin for ever, so there is none.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topics.input
        self._consumer: Any = None
        self._is_paused = False
        self._member_id = ""  # under which everything that `poll` returned was fetched
        self._settled_as = ""  # the member id under which partitions, or none, were first assigned
        self._asked_ends: dict[TopicPartition, int] = {}
        self._asked_at = float("-inf")

    @override
    def start(self, listener: RebalanceListener) -> None:
        bridge = self._settings.bridge
        self._consumer = KafkaConsumer(
            **client_config(self._settings.kafka, f"bridge-{bridge.instance_id}"),
            **CLIENT_OPTIONS,
            group_id=bridge.group,
            group_instance_id=bridge.instance_id,
            partition_assignment_strategy=(CooperativeStickyAssignor,),
            # Not for the input's sake alone: it makes a newcomer wait for offsets in an open transaction.
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=bridge.session_timeout_ms,
            heartbeat_interval_ms=max(100, bridge.session_timeout_ms // 5),
            max_poll_interval_ms=bridge.max_poll_interval_ms,
            fetch_max_bytes=FETCH_MAX_BYTES,
            retry_backoff_ms=20,
            allow_auto_create_topics=False,
        )
        self._consumer.subscribe([self._topic], listener=_Adapter(listener))

    @override
    def poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        if self._is_paused:
            self.pause()  # partitions may have come since
        try:
            found = self._consumer.poll(timeout_ms=timeout_ms, max_records=max_records)
        except kafka_errors.KafkaError as error:
            if getattr(error, "retriable", False):
                return []
            raise translate_consumer_error(error, f"Reading {self._topic}") from error
        self._keep_joining()
        self._notice_rejoining()
        return [_record(one) for ones in found.values() for one in ones]

    def _keep_joining(self) -> None:
        # When the metadata made the leader join again and a poll ends before the answer is there,
        # kafka-python 3.0.12 forgets the join: no assignment, no heartbeat, for ever.
        coordinator = self._consumer._coordinator
        if self._consumer.group_metadata().state == MemberState.REBALANCING and not coordinator.need_rejoin():
            coordinator.request_rejoin()

    def _notice_rejoining(self) -> None:
        # Evicted and back, a consumer has another member id. kafka-python keeps its old positions in
        # partitions that it had before and gets again, and does not always call them lost, although
        # others have worked on them meanwhile.
        metadata = self._consumer.group_metadata()
        member_id = metadata.member_id
        if metadata.state == MemberState.STABLE:
            self._settled_as = member_id
        if not member_id or member_id == self._member_id:
            return
        was_member, self._member_id = bool(self._member_id), member_id
        if was_member:
            raise NotInGroup("The group had given the bridge up; it has joined anew.")

    @override
    def pause(self) -> None:
        self._is_paused = True
        self._consumer.pause(*self._consumer.assignment())

    @override
    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._consumer.resume(*self._consumer.paused())

    @override
    def rewind(self) -> None:
        timeout_ms = self._settings.kafka.request_timeout_s * 1000
        try:
            for place in self._consumer.assignment():
                committed = self._consumer.committed(place, timeout_ms=timeout_ms)
                if committed is None:
                    # Where a group without commits begins. Staying would skip what has been fetched.
                    self._consumer.seek_to_beginning(place)
                else:
                    self._consumer.seek(place, committed)
        except kafka_errors.KafkaError as error:
            raise BrokerUnavailable(f"Reading the committed offsets: {type(error).__name__}") from error

    @override
    def rejoin(self) -> None:
        self._consumer._coordinator.request_rejoin()

    @property
    @override
    def member_id(self) -> str:
        return self._member_id

    @property
    @override
    def has_joined(self) -> bool:
        try:
            self.group_metadata()
        except NotInGroup:
            return False
        return self._settled_as == self._member_id

    @override
    def group_metadata(self) -> GroupMetadata:
        metadata = self._consumer.group_metadata()
        # Without member id a commit counts as one from outside the group, which nothing fences; under
        # another one than before it would be accepted, although others may have done the same work.
        if metadata.generation_id < 0 or not metadata.member_id or metadata.member_id != self._member_id:
            raise NotInGroup("The bridge is not in its group now.")
        return GroupMetadata(metadata)

    @override
    def lags(self) -> dict[int, int]:
        found = {}
        assigned = self._consumer.assignment()
        if self._is_paused and assigned:
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
        # Fetches tell where partitions end, and nothing is fetched while paused: the lag would stand
        # still for as long as the service is down.
        now = time.monotonic()
        if now - self._asked_at < ENDS_EVERY_S:
            return
        self._asked_at = now
        with contextlib.suppress(kafka_errors.KafkaError):
            self._asked_ends = self._consumer.end_offsets(list(assigned), timeout_ms=ENDS_TIMEOUT_MS)

    @override
    def close(self) -> None:
        if self._consumer is not None:
            with contextlib.suppress(kafka_errors.KafkaError):
                self._consumer.close(autocommit=False, timeout_ms=1000)


def _record(found: Any) -> InputRecord:
    return InputRecord(found.topic, found.partition, found.offset, found.timestamp, found.key, found.value)


class _Adapter(ConsumerRebalanceListener):  # type: ignore[misc]  # the base is untyped
    """Hands kafka-python's rebalance calls on, partitions as numbers.

    They come on the consumer's I/O thread while the bridge's thread waits in ``poll()``: heartbeats
    stand still until they return, so whoever listens must return well within the session timeout.
    """

    def __init__(self, listener: RebalanceListener) -> None:
        self._listener = listener

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._listener.on_assigned(_numbers(assigned))

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._listener.on_revoked(_numbers(revoked))

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self._listener.on_lost(_numbers(lost))


def _numbers(places: Collection[TopicPartition]) -> list[int]:
    return sorted(place.partition for place in places)
