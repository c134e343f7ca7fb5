"""Records without transactions, and ranges without a group: what a broker in trouble makes of them."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.future import Future

from streaming.broker import idempotent_producer as producer_module
from streaming.broker import range_reader as reader_module
from streaming.broker.compat import kafka_internals
from streaming.broker.idempotent_producer import IdempotentProducer
from streaming.broker.range_reader import RangeReader
from streaming.errors import BrokerError, BrokerRefused, BrokerUnavailable, PublishFailed, SettingsError
from streaming.settings.sections import KafkaSettings


class Producer:
    """Stands in for kafka-python's producer: each send is acknowledged, fails or stays open."""

    def __init__(self, **_: Any) -> None:
        self.futures: list[Any] = []

    def send(self, topic: str, **_: Any) -> Any:
        future = Awaited()
        self.futures.append(future)
        return future


class Awaited(Future):  # type: ignore[misc]  # the base is untyped
    def get(self, timeout_s: float) -> object:
        if not self.is_done:
            raise kafka_errors.KafkaTimeoutError(f"not within {timeout_s} s")
        if self.exception is not None:
            raise self.exception
        return self.value


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> Producer:
    producer = Producer()
    monkeypatch.setattr(producer_module, "KafkaProducer", lambda **_: producer)
    monkeypatch.setattr(kafka_internals, "prepare_producer", lambda _: None)
    return producer


def test_a_failed_record_is_told_at_the_next_send(producer: Producer) -> None:
    feed = IdempotentProducer(KafkaSettings(), 10)
    for _ in range(3):
        feed.send("t", None, b"{}")
    producer.futures[0].success(None)
    feed.send("t", None, b"{}")
    producer.futures[1].failure(kafka_errors.KafkaTimeoutError("expired"))
    with pytest.raises(BrokerUnavailable, match="for 10 s"):
        feed.send("t", None, b"{}")


def test_a_refused_record_says_why(producer: Producer) -> None:
    feed = IdempotentProducer(KafkaSettings(), 10)
    feed.send("t", None, b"{}")
    producer.futures[0].failure(kafka_errors.TopicAuthorizationFailedError())
    with pytest.raises(BrokerRefused, match="rights"):
        feed.send("t", None, b"{}")


def test_what_is_outstanding_is_bounded(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    # kafka-python's send() takes records until the memory is full.
    monkeypatch.setattr(producer_module, "MAX_OUTSTANDING", 5)
    feed = IdempotentProducer(KafkaSettings(), 0)
    with pytest.raises(BrokerUnavailable):
        for _ in range(20):
            feed.send("t", None, b"{}")
    assert len(producer.futures) == 5


class Consumer:
    """Stands in for kafka-python's consumer on one partition; `faults` come before each answer."""

    def __init__(self) -> None:
        self.at = 0
        self.faults: list[Exception] = []
        self.is_empty = False

    def _stumble(self) -> None:
        if self.faults:
            raise self.faults.pop(0)

    def assign(self, places: list[TopicPartition]) -> None:
        pass

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.at = offset

    def position(self, place: TopicPartition, timeout_ms: int | None = None) -> int:
        assert timeout_ms, "may wait for ever"
        self._stumble()
        return self.at

    def partitions_for_topic(self, topic: str) -> set[int]:
        self._stumble()
        return {0}

    def beginning_offsets(self, places: list[TopicPartition], timeout_ms: float) -> dict[Any, int]:
        return dict.fromkeys(places, 0)

    def end_offsets(self, places: list[TopicPartition], timeout_ms: float) -> dict[Any, int]:
        return dict.fromkeys(places, 9)

    def offsets_for_times(self, times: dict[TopicPartition, int], timeout_ms: float) -> dict[Any, Any]:
        if any(moment < 0 for moment in times.values()):
            raise ValueError("negative timestamp")  # as kafka-python does
        return {place: SimpleNamespace(offset=moment // 1000) for place, moment in times.items()}

    def poll(self, timeout_ms: int) -> dict[Any, Any]:
        self._stumble()
        if self.is_empty:
            return {}
        self.at += 1
        record = SimpleNamespace(
            **{"topic": "t", "partition": 0, "offset": self.at - 1, "timestamp": 0},
            **{"key": None, "value": b"{}", "headers": []},
        )
        return {TopicPartition("t", 0): [record]}

    def close(self, **_: Any) -> None:
        pass


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def reader(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> RangeReader:
    monkeypatch.setattr(reader_module, "KafkaConsumer", lambda **_: consumer)
    monkeypatch.setattr(kafka_internals, "prepare_consumer", lambda *_: None)
    return RangeReader(KafkaSettings())


def offsets(reader: RangeReader) -> list[int]:
    return [record.offset for chunk in reader.read("t", {0: 0}, {0: 3}) for record in chunk]


def test_a_broker_that_restarts_is_waited_for(reader: RangeReader, consumer: Consumer) -> None:
    consumer.faults = [kafka_errors.KafkaTimeoutError("x"), kafka_errors.NodeNotReadyError()]
    assert offsets(reader) == [0, 1, 2]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (kafka_errors.TopicAuthorizationFailedError(), BrokerRefused),
        (kafka_errors.OffsetOutOfRangeError(), PublishFailed),
    ],
)
def test_a_refusal_while_reading_is_one_of_ours(
    fault: Exception, kind: type[BrokerError], reader: RangeReader, consumer: Consumer
) -> None:
    consumer.faults = [fault]
    with pytest.raises(kind, match="Reading t"):
        offsets(reader)


def test_looking_for_a_topic_fails_as_one_of_ours(reader: RangeReader, consumer: Consumer) -> None:
    consumer.faults = [kafka_errors.KafkaTimeoutError("x")]
    with pytest.raises(BrokerUnavailable):
        reader.resolve("t", "latest")


def test_silence_ends_the_reading(
    reader: RangeReader, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer.is_empty = True
    monkeypatch.setattr(reader_module, "SILENCE_S", 0.0)
    with pytest.raises(BrokerUnavailable, match="is the broker up"):
        offsets(reader)


def test_work_between_two_reads_is_no_silence(
    reader: RangeReader, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(reader_module.time, "monotonic", lambda: clock.now)
    chunks = reader.read("t", {0: 0}, {0: 3})
    next(chunks)
    clock.now += 3600  # the service was down for an hour
    consumer.faults = [kafka_errors.KafkaTimeoutError("position"), kafka_errors.KafkaTimeoutError("poll")]
    assert len(list(chunks)) == 2


@pytest.mark.parametrize(("bound", "offset"), [("1969-01-01", 0), ("1970-01-01T00:00:05", 5), ("7", 7)])
def test_a_bound_may_lie_before_kafkas_time(reader: RangeReader, bound: str, offset: int) -> None:
    assert reader.resolve("t", bound) == {0: offset}


@pytest.mark.parametrize("bound", ["²", "0001-01-01T00:00:00+14:00x", "1e3"])
def test_a_bound_that_is_none_is_a_wrong_setting(reader: RangeReader, bound: str) -> None:
    with pytest.raises(SettingsError):
        reader.resolve("t", bound)
