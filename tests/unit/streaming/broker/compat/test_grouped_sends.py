"""Records that are handed over together are what `KafkaProducer.send` would have made of them one by one."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.producer.future import FutureRecordMetadata
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.record.memory_records import MemoryRecords

from streaming.broker.compat.grouped_sends import SentBatch, forbid_splitting, send_records
from streaming.records import OutputRecord

PLACE = TopicPartition("decisions", 3)


class Producer:
    """The accumulator of a producer without a broker: `send` adds one record to it, as the real one does."""

    def __init__(self, batch_size: int = 262_144) -> None:
        self._accumulator = RecordAccumulator(batch_size=batch_size)
        self._sender = SimpleNamespace(wakeup=lambda: None)
        self.config = {"max_request_size": 10_000}

    def send(self, topic: str, value: Any, key: Any, headers: Any, partition: int) -> FutureRecordMetadata:
        place = TopicPartition(topic, partition)
        future: FutureRecordMetadata = self._accumulator.append(place, None, key, value, headers)[0]
        return future

    @property
    def batches(self) -> list[Any]:
        return list(self._accumulator._batches[PLACE])


def outputs(count: int, size: int = 20) -> list[OutputRecord]:
    return [
        OutputRecord("decision", 3, b"k%d" % n, b"v" * size, [("traceparent", b"%d" % n)] if n % 2 else [], n)
        for n in range(count)
    ]


def records_in(batch: Any) -> list[tuple[Any, Any, Any]]:
    batch.records.close()
    found = [record for part in MemoryRecords(batch.records.buffer()) for record in part]
    assert [record.offset for record in found] == list(range(len(found)))
    return [(record.key, record.value, record.headers) for record in found]


@pytest.mark.parametrize("batch_size", [262_144, 200])
def test_each_record_is_sent_once_in_order_and_answered_for(batch_size: int) -> None:
    producer, wanted = Producer(batch_size), outputs(40)
    sent = send_records(producer, PLACE, wanted)
    found = [record for batch in producer.batches for record in records_in(batch)]
    assert found == [(one.key, one.value, one.headers) for one in wanted]
    assert [one for batch in sent for one in batch.outputs] == wanted
    assert [batch.future for batch in sent] == [batch.produce_future for batch in producer.batches]
    assert {*producer._accumulator._incomplete.all()} == {*producer.batches}
    assert (len(sent) > 1) == (batch_size == 200)


def test_a_batch_that_left_meanwhile_is_not_touched() -> None:
    producer, send = Producer(), Producer.send

    def send_and_leave(*arguments: Any, **names: Any) -> FutureRecordMetadata:
        future = send(producer, *arguments, **names)
        producer.batches[0].records.close()
        return future

    producer.send = send_and_leave  # type: ignore[method-assign]
    sent = send_records(producer, PLACE, outputs(3))
    assert [len(batch.outputs) for batch in sent] == [1, 2]
    assert [len(records_in(batch)) for batch in producer.batches] == [1, 2]


def test_a_closed_producer_takes_nothing() -> None:
    producer = Producer()
    producer.send("decisions", value=b"v", key=b"k", headers=[], partition=3)
    send = producer.send

    def send_and_close(*arguments: Any, **names: Any) -> FutureRecordMetadata:
        future = send(*arguments, **names)
        producer._accumulator.close()
        return future

    producer.send = send_and_close  # type: ignore[method-assign]
    with pytest.raises(kafka_errors.IllegalStateError):
        send_records(producer, PLACE, outputs(3))
    assert not producer._accumulator._appends_in_progress.get()


def test_a_record_above_the_largest_request_is_refused() -> None:
    with pytest.raises(kafka_errors.MessageSizeTooLargeError):
        send_records(Producer(), PLACE, [*outputs(1), *outputs(1, size=20_000)])


def sent_batch() -> tuple[Any, SentBatch]:
    producer = Producer()
    (sent,) = send_records(producer, PLACE, outputs(3))
    return producer.batches[0], sent


def test_what_the_broker_took_is_no_refusal() -> None:
    batch, sent = sent_batch()
    batch.complete(17, -1)
    assert sent.wait(0.0) is None


def test_silence_is_a_refusal() -> None:
    _, sent = sent_batch()
    refusal = sent.wait(0.0)
    assert refusal is not None
    assert isinstance(refusal[1], kafka_errors.KafkaTimeoutError)


def test_a_refused_batch_names_the_record_that_the_broker_named() -> None:
    batch, sent = sent_batch()
    wrong = kafka_errors.InvalidRecordError("no key")
    errors = [kafka_errors.KafkaError("beside it"), wrong, kafka_errors.KafkaError("beside it")]
    batch.complete_exceptionally(wrong, lambda place: errors[place])
    assert sent.wait(0.0) == (sent.outputs[1], wrong)


def test_a_batch_that_is_given_up_is_refused() -> None:
    batch, sent = sent_batch()
    closed = kafka_errors.IllegalStateError("closed by force")
    batch.abort(closed)
    assert sent.wait(0.0) == (sent.outputs[0], closed)


def test_a_batch_is_never_split() -> None:
    producer: Any = SimpleNamespace(_sender=SimpleNamespace(_can_split=lambda batch, error: True))
    forbid_splitting(producer)
    assert not producer._sender._can_split(None, kafka_errors.MessageSizeTooLargeError)
