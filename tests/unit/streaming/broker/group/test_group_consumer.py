"""What the consumer's wrapper does about kafka-python's ways; a real broker follows in tests/integration."""

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata

from streaming.broker.group import group_consumer as consumer
from streaming.broker.group import start_finder
from streaming.broker.group.group_consumer import GroupConsumer
from streaming.errors import BrokerUnavailable, NotInGroup, OffsetGap
from streaming.settings.load import Settings
from tests.integration.streaming.broker.test_broker import Silent

PLACE = TopicPartition("transactions", 0)
FIRST_ID, LATER_ID = uuid.UUID(int=1), uuid.UUID(int=2)


class State:
    """Stands in for kafka-python's state of a partition."""

    def __init__(self) -> None:
        self.position = 0
        self.sought: list[OffsetAndMetadata] = []

    def seek(self, position: OffsetAndMetadata) -> None:
        self.position = position.offset
        self.sought.append(position)


class Coordinator:
    """Stands in for kafka-python's coordinator, while it joins."""

    def need_rejoin(self) -> bool:
        return True


class Consumer:
    """Stands in for kafka-python's consumer: one partition, whose position moves with each poll."""

    def __init__(self, **_: Any) -> None:
        self.member_id = "first"
        self.generation_id = 1
        self.state = MemberState.STABLE
        self.partition = State()
        self.is_committed: OffsetAndMetadata | None = OffsetAndMetadata(0, "", -1)
        self.topic_id = FIRST_ID
        self.first, self.end = 0, 10
        self._coordinator = Coordinator()
        self.leader = 1
        self._cluster = SimpleNamespace(
            config={}, topic_id=lambda topic: self.topic_id, leader_for_partition=lambda place: self.leader
        )
        self._subscription = SimpleNamespace(assignment={PLACE: self.partition})
        self.listener: Any = None

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self.listener = listener

    def assignment(self) -> set[TopicPartition]:
        return {PLACE}

    def group_metadata(self) -> ConsumerGroupMetadata:
        return ConsumerGroupMetadata(
            group_id="g",
            generation_id=self.generation_id,
            member_id=self.member_id,
            group_instance_id=None,
            state=self.state,
        )

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        record = SimpleNamespace(
            **{"topic": "transactions", "partition": 0, "offset": self.partition.position, "timestamp": 0},
            **{"key": None, "value": b"{}", "headers": [], "leader_epoch": 5},
        )
        self.partition.position += 1
        return {PLACE: [record]}

    def committed(self, place: TopicPartition, metadata: bool, timeout_ms: float) -> OffsetAndMetadata | None:
        return self.is_committed

    def beginning_offsets(self, places: Any, timeout_ms: float) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.first)

    def end_offsets(self, places: Any, timeout_ms: float) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.end)


@pytest.fixture
def inner(monkeypatch: pytest.MonkeyPatch) -> Consumer:
    monkeypatch.setattr(consumer.kafka_internals, "prepare_consumer", lambda *_: None)
    monkeypatch.setattr(consumer.kafka_internals, "load_metadata", lambda *_: None)
    return Consumer()


@pytest.fixture
def source(inner: Consumer, monkeypatch: pytest.MonkeyPatch) -> GroupConsumer:
    monkeypatch.setattr(consumer, "KafkaConsumer", lambda **_: inner)
    source = GroupConsumer(Settings())
    source.start(Silent())
    return source


def offsets(source: GroupConsumer) -> list[int]:
    return [record.offset for record in source.poll(1, 10)]


@pytest.fixture
def joined(source: GroupConsumer) -> GroupConsumer:
    """Return a source that has set its positions."""
    assert source.poll(1, 10) == []  # fetched before the positions were known
    return source


def test_what_an_evicted_member_had_fetched_is_fetched_again(joined: GroupConsumer, inner: Consumer) -> None:
    assert offsets(joined) == [0]
    inner.member_id = "second"
    inner.is_committed = OffsetAndMetadata(1, "", -1)
    with pytest.raises(NotInGroup):
        joined.poll(1, 10)  # what this poll fetched is thrown away, and the position has moved
    joined.rewind()
    assert offsets(joined) == [1]


def test_a_generation_that_passed_by_counts_as_an_eviction(joined: GroupConsumer, inner: Consumer) -> None:
    """Others may have owned the partitions in between, though the member id stayed."""
    inner.generation_id = 3
    with pytest.raises(NotInGroup):
        joined.group_metadata()
    with pytest.raises(NotInGroup):
        joined.poll(1, 10)


def test_each_assignment_begins_at_the_committed_offsets(joined: GroupConsumer, inner: Consumer) -> None:
    assert offsets(joined) == [0]
    inner.listener.on_partitions_revoked({PLACE})
    with pytest.raises(NotInGroup):
        joined.group_metadata()
    inner.generation_id, inner.is_committed = 2, OffsetAndMetadata(7, "", 5)
    assert joined.poll(1, 10) == []
    assert offsets(joined) == [7]
    assert inner.partition.sought[-1].leader_epoch == 5


def test_a_topic_that_was_made_again_is_read_from_its_beginning(
    joined: GroupConsumer, inner: Consumer
) -> None:
    assert offsets(joined) == [0]
    inner.is_committed = OffsetAndMetadata(5, f"topic-id={FIRST_ID}", 5)
    inner.topic_id = LATER_ID
    assert joined.poll(1, 10) == []  # at the old position in the new topic
    assert offsets(joined) == [0]


def test_records_that_retention_removed_are_counted(inner: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    skipped: list[tuple[int, str, int]] = []
    monkeypatch.setattr(consumer, "KafkaConsumer", lambda **_: inner)
    source = GroupConsumer(Settings(), lambda *what: skipped.append(what))
    source.start(Silent())
    inner.first, inner.is_committed = 4, OffsetAndMetadata(1, "", -1)
    source.poll(1, 10)
    assert offsets(source) == [4]
    assert skipped == [(0, "removed", 3)]


def test_a_shorter_log_is_waited_for_and_then_ends_the_bridge(
    joined: GroupConsumer, inner: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner.is_committed = OffsetAndMetadata(50, "", -1)
    with pytest.raises(BrokerUnavailable):
        joined.rewind()  # a new leader may not know its end yet
    monkeypatch.setattr(start_finder, "TRUNCATION_PATIENCE_S", 0.0)
    with pytest.raises(OffsetGap, match="--accept-gap"):
        joined.rewind()


def test_a_partition_that_is_well_does_not_make_a_shorter_one_wait_for_ever(
    inner: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(start_finder, "time", SimpleNamespace(monotonic=lambda: now[0]))
    well, short = PLACE, TopicPartition("transactions", 1)
    committed = {well: OffsetAndMetadata(5, "", 3), short: OffsetAndMetadata(50, "", 3)}
    monkeypatch.setattr(inner, "committed", lambda place, *_: committed[place])
    finder = start_finder.StartFinder(Settings(), inner, lambda *_: None)
    with pytest.raises(BrokerUnavailable):
        finder.find([well, short], str(FIRST_ID))
    now[0] += start_finder.TRUNCATION_PATIENCE_S + 1
    with pytest.raises(OffsetGap, match="partition 1"):
        finder.find([well, short], str(FIRST_ID))


def test_shorter_partitions_are_waited_for_together_and_what_is_gone_is_counted_once(
    inner: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, skipped = [100.0], []
    monkeypatch.setattr(start_finder, "time", SimpleNamespace(monotonic=lambda: now[0]))
    tps = [TopicPartition("transactions", number) for number in range(3)]
    offsets = dict(zip(tps, (1, 50, 60), strict=True))
    monkeypatch.setattr(inner, "committed", lambda place, *_: OffsetAndMetadata(offsets[place], "", 3))
    inner.first = 4
    settings = Settings()
    accepting = settings.bridge.model_copy(update={"accept_gap": True})
    settings = settings.model_copy(update={"bridge": accepting})
    finder = start_finder.StartFinder(settings, inner, lambda *what: skipped.append(what))
    with pytest.raises(BrokerUnavailable):
        finder.find(tps, str(FIRST_ID))
    now[0] += start_finder.TRUNCATION_PATIENCE_S + 1
    starts = finder.find(tps, str(FIRST_ID))
    assert [starts[tp].offset for tp in tps] == [4, 50, 60]
    assert skipped == [(0, "removed", 3)]


def test_an_accepted_gap_is_waited_for_too_and_the_leader_is_asked_where_it_begins(
    inner: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "KafkaConsumer", lambda **_: inner)
    settings = Settings()
    accepting = settings.bridge.model_copy(update={"accept_gap": True})
    source = GroupConsumer(settings.model_copy(update={"bridge": accepting}))
    source.start(Silent())
    source.poll(1, 10)
    inner.partition.sought.clear()
    inner.is_committed = OffsetAndMetadata(50, "", 3)
    with pytest.raises(BrokerUnavailable):
        source.rewind()  # a new leader may not know its end yet: to go back would decide again
    monkeypatch.setattr(start_finder, "TRUNCATION_PATIENCE_S", 0.0)
    source.rewind()
    assert [(one.offset, one.leader_epoch) for one in inner.partition.sought] == [(50, 3)]


def test_one_has_joined_when_the_positions_are_set(source: GroupConsumer, inner: Consumer) -> None:
    inner.state = MemberState.REBALANCING  # a member by its id, while the leader still assigns
    source.poll(1, 10)
    assert not source.has_joined
    inner.state = MemberState.STABLE
    source.poll(1, 10)
    assert source.has_joined
    inner.state = MemberState.REBALANCING  # another member comes: what is in flight may be finished
    source.poll(1, 10)
    assert source.has_joined
    inner.member_id = "second"
    assert not source.has_joined


def test_a_partition_without_a_leader_begins_at_its_commit_and_holds_up_nothing(
    inner: Consumer, source: GroupConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking where it begins and ends waits until the broker is back, and with it all other partitions."""

    def wait(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for what nobody can tell")

    inner.is_committed = OffsetAndMetadata(7, f"topic-id={FIRST_ID}", 4)
    inner.leader = -1
    monkeypatch.setattr(inner, "end_offsets", wait)
    monkeypatch.setattr(inner, "beginning_offsets", wait)
    source.rewind()
    assert [(one.offset, one.leader_epoch) for one in inner.partition.sought] == [(7, 4)]


def test_what_was_decided_is_looked_up_once_though_nothing_is_committed_yet(
    inner: Consumer, source: GroupConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output partition without a leader must not hold up a group that has begun already."""
    asked: list[list[int]] = []
    monkeypatch.setattr(
        start_finder, "find_decided_offsets", lambda _, missing: asked.append(missing) or {0: 4}
    )
    inner.is_committed = None
    for _ in range(2):
        source.rewind()
        assert inner.partition.sought[-1].offset == 4
    assert asked == [[0]]
    inner.topic_id = LATER_ID  # made again: from its beginning
    source.rewind()
    assert inner.partition.sought[-1].offset == 0
    inner.is_committed = OffsetAndMetadata(6, f"topic-id={LATER_ID}", 5)
    source.rewind()
    assert inner.partition.sought[-1].offset == 6
    inner.is_committed = None  # lost: what was decided has to be looked up again
    source.rewind()
    assert asked == [[0], [0]]
