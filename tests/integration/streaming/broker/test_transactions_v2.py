"""The second version of Kafka's transactions against a genuine broker."""

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.producer.transaction_manager import ProducerIdAndEpoch, TransactionManager

from streaming.broker.topics import prepare_topics
from streaming.broker.transactional_producer import TransactionalProducer
from streaming.errors import Fenced
from streaming.settings.load import Settings
from tests.integration.streaming.broker.test_broker import make_sink, publish, published
from tests.streaming_fixtures import MakeSettings

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("genuine_broker")]
EPOCHS = 32_767


@pytest.fixture
def settings(fresh_settings: MakeSettings) -> Settings:
    return fresh_settings()


@pytest.fixture
def sink(settings: Settings) -> Iterator[TransactionalProducer]:
    sink = make_sink(settings, prepare_topics(settings))
    sink.start()
    yield sink
    sink.close()


def producer_of(sink: TransactionalProducer) -> ProducerIdAndEpoch:
    found: ProducerIdAndEpoch = sink._producer._transaction_manager.producer_id_and_epoch
    return found


def test_a_transaction_takes_two_requests_beside_its_records_and_an_epoch(
    sink: TransactionalProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    take = TransactionManager.next_request_handler

    def remember(self: Any, has_incomplete: bool) -> Any:
        handler = take(self, has_incomplete)
        sent.extend([type(handler.request).__name__] if handler is not None else [])
        return handler

    publish(sink, settings, b"0")  # and finds the coordinators
    monkeypatch.setattr(TransactionManager, "next_request_handler", remember)
    before = producer_of(sink)
    for number in range(1, 4):
        publish(sink, settings, *[b"%d" % number] * 4, offset=number)
    assert sent == ["TxnOffsetCommitRequest", "EndTxnRequest"] * 3
    after = producer_of(sink)
    assert (after.producer_id, after.epoch) == (before.producer_id, before.epoch + 3)
    assert published(settings) == [b"0", *[b"1"] * 4, *[b"2"] * 4, *[b"3"] * 4]


def test_a_record_of_a_transaction_that_has_ended_is_refused(
    sink: TransactionalProducer, settings: Settings
) -> None:
    before = producer_of(sink)
    publish(sink, settings, b"1")
    sink._producer._transaction_manager.producer_id_and_epoch = before
    with pytest.raises(Fenced):
        publish(sink, settings, b"late", offset=2)
    sink.start()
    publish(sink, settings, b"2", offset=2)
    assert published(settings) == [b"1", b"2"]


def test_an_end_whose_answer_is_lost_is_asked_for_again(
    sink: TransactionalProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has begun the next epoch by then, and tells it once more."""
    publish(sink, settings, b"1")
    commit = KafkaProducer.commit_transaction

    def cut(self: Any) -> None:
        answer = type(self._transaction_manager)._begin_completing_transaction
        monkeypatch.undo()

        def begin(manager: Any, committed: bool) -> Any:
            result = answer(manager, committed)
            end = manager._pending_requests[-1][-1]
            handle = end.handle_response
            end.handle_response = lambda response: (
                setattr(end, "handle_response", handle),
                end.reenqueue(),
            )
            return result

        monkeypatch.setattr(type(self._transaction_manager), "_begin_completing_transaction", begin)
        commit(self)

    monkeypatch.setattr(KafkaProducer, "commit_transaction", cut)
    publish(sink, settings, b"2", offset=2)
    monkeypatch.undo()
    publish(sink, settings, b"3", offset=3)
    assert published(settings) == [b"1", b"2", b"3"]


@pytest.mark.e2e_long
@pytest.mark.timeout(900)
def test_when_there_are_no_more_epochs_it_goes_on_as_another_producer(
    sink: TransactionalProducer, settings: Settings
) -> None:
    """At 60 transactions a second that is every nine minutes."""
    first = producer_of(sink).producer_id
    for number in range(1, EPOCHS + 100):
        publish(sink, settings, *([b"%d" % number] if number % 500 == 0 or number > EPOCHS - 10 else []))
    assert producer_of(sink).producer_id != first
    numbers = {number for number in range(1, EPOCHS + 100) if number % 500 == 0 or number > EPOCHS - 10}
    assert sorted(map(int, published(settings))) == sorted(numbers)
