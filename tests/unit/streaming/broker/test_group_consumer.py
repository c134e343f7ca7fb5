"""What the consumer's wrapper does about kafka-python's ways; a real broker follows in tests/integration."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata, MemberState

from streaming.broker import group_consumer as consumer
from streaming.broker.group_consumer import GroupConsumer
from streaming.errors import NotInGroup
from streaming.settings.load import Settings
from tests.integration.streaming.broker.test_broker import Silent

PLACE = TopicPartition("transactions", 0)


class Consumer:
    """Stands in for kafka-python's consumer: one partition, whose position moves with each poll."""

    def __init__(self, **_: Any) -> None:
        self.member_id = "first"
        self.state = MemberState.STABLE
        self.position = 0
        self.is_committed: int | None = None
        self._coordinator = SimpleNamespace(need_rejoin=lambda: True)  # as while it joins

    def subscribe(self, topics: list[str], listener: Any) -> None:
        pass

    def assignment(self) -> set[TopicPartition]:
        return {PLACE}

    def group_metadata(self) -> ConsumerGroupMetadata:
        return ConsumerGroupMetadata(
            group_id="g",
            generation_id=1,
            member_id=self.member_id,
            group_instance_id=None,
            state=self.state,
        )

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        record = SimpleNamespace(
            topic="transactions", partition=0, offset=self.position, timestamp=0, key=None, value=b"{}"
        )
        self.position += 1
        return {PLACE: [record]}

    def committed(self, place: TopicPartition, timeout_ms: float) -> int | None:
        return self.is_committed

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.position = offset

    def seek_to_beginning(self, place: TopicPartition) -> None:
        self.position = 0


@pytest.fixture
def inner() -> Consumer:
    return Consumer()


@pytest.fixture
def source(inner: Consumer, monkeypatch: pytest.MonkeyPatch) -> GroupConsumer:
    monkeypatch.setattr(consumer, "KafkaConsumer", lambda **_: inner)
    source = GroupConsumer(Settings())
    source.start(Silent())
    return source


def offsets(source: GroupConsumer) -> list[int]:
    return [record.offset for record in source.poll(1, 10)]


@pytest.mark.parametrize(("committed", "again"), [(None, 0), (1, 1)])
def test_what_an_evicted_member_had_fetched_is_fetched_again(
    source: GroupConsumer, inner: Consumer, committed: int | None, again: int
) -> None:
    assert offsets(source) == [0]
    inner.member_id = "second"
    inner.is_committed = committed
    with pytest.raises(NotInGroup):
        source.poll(1, 10)  # what this poll fetched is thrown away, and the position has moved
    source.rewind()
    assert offsets(source) == [again]


def test_records_thrown_away_before_any_was_returned_are_not_skipped(
    source: GroupConsumer, inner: Consumer
) -> None:
    source._member_id = "before"
    with pytest.raises(NotInGroup):
        source.poll(1, 10)
    source.rewind()
    assert offsets(source) == [0]


def test_one_has_joined_when_the_group_has_told_what_to_read(source: GroupConsumer, inner: Consumer) -> None:
    inner.state = MemberState.REBALANCING  # a member by its id, while the leader still assigns
    source.poll(1, 10)
    assert not source.has_joined
    inner.state = MemberState.STABLE
    source.poll(1, 10)
    assert source.has_joined
    inner.state = MemberState.REBALANCING  # somebody else comes: what is read goes on being read
    source.poll(1, 10)
    assert source.has_joined
    inner.member_id, inner.state = "second", MemberState.REBALANCING
    with pytest.raises(NotInGroup):
        source.poll(1, 10)
    assert not source.has_joined
