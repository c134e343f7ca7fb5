"""How far behind a bridge is, while it fetches and while it waits."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka import errors as kafka_errors

from streaming.broker.group import partition_ends
from streaming.broker.group.group_consumer import GroupConsumer
from streaming.settings.load import Settings

PLACES = [TopicPartition("transactions", 0), TopicPartition("transactions", 1)]


class Consumer:
    """What `lags` asks of kafka-python's consumer; ends move by themselves, high-water marks do not."""

    def __init__(self) -> None:
        self.marks: dict[TopicPartition, int | None] = {PLACES[0]: 100, PLACES[1]: None}
        self.ends = {PLACES[0]: 100, PLACES[1]: 7}
        self.asked: list[int] = []
        self.error: Exception | None = None
        self.leaderless: set[TopicPartition] = set()
        self._cluster = SimpleNamespace(
            leader_for_partition=lambda place: -1 if place in self.leaderless else 1, brokers=list
        )

    def assignment(self) -> set[TopicPartition]:
        return set(PLACES)

    def pause(self, *places: TopicPartition) -> None:
        pass

    def highwater(self, place: TopicPartition) -> int | None:
        return self.marks[place]

    def position(self, place: TopicPartition, timeout_ms: int) -> int:
        return {PLACES[0]: 90, PLACES[1]: 7}[place]

    def end_offsets(self, places: Any, timeout_ms: int) -> dict[TopicPartition, int]:
        self.asked.append(timeout_ms)
        if self.error is not None:
            raise self.error
        return {place: self.ends[place] for place in places}


@pytest.fixture
def kafka() -> Consumer:
    return Consumer()


@pytest.fixture
def source(kafka: Consumer, monkeypatch: pytest.MonkeyPatch) -> GroupConsumer:
    source = GroupConsumer(Settings())
    monkeypatch.setattr(source, "_consumer", kafka)
    return source


def test_while_it_fetches_the_answers_tell(source: GroupConsumer, kafka: Consumer) -> None:
    kafka.error = kafka_errors.KafkaTimeoutError()
    assert source.lags() == {0: 10}  # nothing has been fetched from the other yet


def test_while_paused_the_lag_grows_with_the_topic(
    source: GroupConsumer, kafka: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_ends, "ENDS_EVERY_S", 0.0)
    source.pause()
    assert source.lags() == {0: 10, 1: 0}
    kafka.ends = {PLACES[0]: 5090, PLACES[1]: 8}
    assert source.lags() == {0: 5000, 1: 1}
    assert all(timeout_ms <= 1000 for timeout_ms in kafka.asked), "the loop must turn meanwhile"


def test_the_broker_is_not_asked_at_every_turn(source: GroupConsumer, kafka: Consumer) -> None:
    source.pause()
    for _ in range(100):
        source.lags()
    assert len(kafka.asked) == 1


def test_a_broker_that_does_not_tell_leaves_what_was_known(
    source: GroupConsumer, kafka: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_ends, "ENDS_EVERY_S", 0.0)
    source.pause()
    kafka.ends[PLACES[0]] = 200
    assert source.lags()[0] == 110
    kafka.error = kafka_errors.KafkaTimeoutError()
    assert source.lags()[0] == 110


def test_a_partition_without_a_leader_holds_up_no_question_and_counts_as_no_answer(
    source: GroupConsumer, kafka: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_ends, "ENDS_EVERY_S", 0.0)
    source.lags()
    before = source._ends.answered_at
    kafka.leaderless = {PLACES[1]}
    kafka.ends = {PLACES[0]: 130}  # asked about the other, it would fail
    assert source.lags()[0] == 40
    assert source._ends.answered_at == before
