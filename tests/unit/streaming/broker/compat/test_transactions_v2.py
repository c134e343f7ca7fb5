"""When the second version of Kafka's transactions is driven, and how records are numbered in it."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.future import Future
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import (
    ProducerIdAndEpoch,
    TransactionManager,
    TransactionState,
)

from streaming.broker.compat.transactions_v2 import use_transactions_v2

PLACE = TopicPartition("decisions", 3)


def make_producer(answer: Future, asked: list[Any] | None = None) -> Any:
    def call_soon(function: None, request: Any, node_id: int) -> Future:
        (asked if asked is not None else []).append(node_id)
        return answer

    manager = TransactionManager(transactional_id="id", api_version=(4, 1))
    manager.producer_id_and_epoch = ProducerIdAndEpoch(5, 7)
    manager._current_state = TransactionState.IN_TRANSACTION
    sender = object.__new__(Sender)
    names = {"client_software_name": "a", "client_software_version": "1"}  # a broker refuses blank ones
    manager_of_connections = SimpleNamespace(call_soon=call_soon, send=None, config=names)
    sender._client = SimpleNamespace(_manager=manager_of_connections)
    return SimpleNamespace(_sender=sender, _transaction_manager=manager)


def features(**levels: int) -> Future:
    found = [
        SimpleNamespace(name=name.replace("_", "."), max_version_level=level)
        for name, level in levels.items()
    ]
    return Future().success(SimpleNamespace(finalized_features=found))


@pytest.mark.parametrize(
    "answer",
    [
        features(),
        features(metadata_version=27, transaction_version=1),
        Future().success(SimpleNamespace(finalized_features=None)),
        Future().failure(TimeoutError()),
        Future(),
    ],
    ids=["nothing", "first version", "old broker", "failed", "no answer"],
)
def test_without_word_of_the_second_version_the_first_stays(answer: Future) -> None:
    producer = make_producer(answer)
    assert not use_transactions_v2(producer, 0.01)
    assert type(producer._transaction_manager) is TransactionManager
    assert type(producer._sender) is Sender


def test_the_coordinator_is_asked_which_has_just_answered() -> None:
    asked: list[Any] = []
    producer = make_producer(features(transaction_version=2), asked)
    producer._transaction_manager._transaction_coordinator = 3
    assert use_transactions_v2(producer, 0.01)
    assert asked == [3]


def test_partitions_and_group_take_no_request() -> None:
    producer = make_producer(features(transaction_version=2))
    assert use_transactions_v2(producer, 0.01)
    manager = producer._transaction_manager
    manager.maybe_add_partition_to_transaction(PLACE)
    assert manager.is_send_to_partition_allowed(PLACE)
    assert manager.next_request_handler(True) is None


def end_transaction(error_code: int, producer_id: int, epoch: int) -> tuple[Any, Any]:
    """Answer the end of a transaction with 40 records; return its result and the manager."""
    producer = make_producer(features(transaction_version=2))
    use_transactions_v2(producer, 0.01)
    manager = producer._transaction_manager
    manager.maybe_add_partition_to_transaction(PLACE)
    manager.set_sequence_number(PLACE, 40)
    result = manager.begin_commit()
    answer = SimpleNamespace(error_code=error_code, producer_id=producer_id, producer_epoch=epoch)
    manager.next_request_handler(False).handle_response(answer)
    return result, manager


@pytest.mark.parametrize(("producer_id", "epoch"), [(5, 8), (6, 0)], ids=["next epoch", "no more epochs"])
def test_the_records_of_each_transaction_are_numbered_from_0(producer_id: int, epoch: int) -> None:
    result, manager = end_transaction(0, producer_id, epoch)
    assert result.succeeded
    assert manager.producer_id_and_epoch == ProducerIdAndEpoch(producer_id, epoch)
    assert manager.sequence_number(PLACE) == 0


def test_a_refused_end_changes_no_epoch() -> None:
    result, manager = end_transaction(47, -1, -1)
    assert result.failed
    assert manager.producer_id_and_epoch == ProducerIdAndEpoch(5, 7)
    assert manager.sequence_number(PLACE) == 40
