# ruff: noqa: ANN401  # kafka-python is untyped, and this is where its private parts are used
"""Drives the second version of Kafka's transactions (KIP-890): kafka-python 3.0.12 can only spell it.

In the first version a transaction takes five requests: its partitions, the records, its group, the offsets,
its end. In the second the broker adds partitions and group by itself. Each transaction has its own epoch,
too: a record that arrives late is refused, and not taken into the next one. Three requests are left, each of
them sent after the answer to the one before.
"""

import threading
from collections.abc import Mapping
from typing import Any

from kafka import TopicPartition
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import (
    EndTxnHandler,
    ProducerIdAndEpoch,
    TransactionalRequestResult,
    TransactionManager,
    TxnOffsetCommitHandler,
)
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.structs import OffsetAndMetadata
from typing_extensions import override

# The broker tells by these versions of the requests which version of transactions a client drives.
PRODUCE, OFFSET_COMMIT, END = 12, 5, 5
FEATURE, VERSION = "transaction.version", 2


def use_transactions_v2(producer: Any, timeout_s: float) -> bool:
    """Let a connected producer, before its first transaction, drive the second version if the cluster has it.

    Parameters
    ----------
    producer : KafkaProducer
    timeout_s : float
        How long the broker may take to tell. Without an answer the first version stays: every broker has it.

    Returns
    -------
    bool
        Whether it does.
    """
    if _features(producer, timeout_s).get(FEATURE, 0) < VERSION:
        return False
    producer._transaction_manager.__class__ = _Manager
    producer._sender.__class__ = _Sender
    return True


def _features(producer: Any, timeout_s: float) -> dict[str, int]:
    """Return what the cluster has switched on, with its version; empty without an answer."""
    manager = producer._sender._client._manager
    # It has just answered. Another broker may be away, and cost a starting bridge the whole time.
    coordinator = producer._transaction_manager._transaction_coordinator
    answered = threading.Event()
    names = {name: manager.config[name] for name in ("client_software_name", "client_software_version")}
    future = manager.call_soon(manager.send, ApiVersionsRequest(min_version=3, **names), coordinator)
    future.add_both(lambda _: answered.set())
    if not answered.wait(timeout_s) or future.failed():
        return {}
    return {one.name: one.max_version_level for one in future.value.finalized_features or ()}


def _fix_version(request: Any, version: int) -> Any:
    request._min_version = request._max_version = version
    return request


class _OffsetCommit(TxnOffsetCommitHandler):  # type: ignore[misc]  # the base is untyped
    @override
    def _build_request(self) -> Any:
        return _fix_version(super()._build_request(), OFFSET_COMMIT)


class _End(EndTxnHandler):  # type: ignore[misc]  # the base is untyped
    transaction_manager: Any
    request: Any

    def __init__(self, manager: Any, committed: bool) -> None:
        super().__init__(manager, committed)
        self.request = _fix_version(self.request, END)

    @override
    def handle_response(self, response: Any) -> None:
        if not response.error_code:
            # The epoch of the next transaction, or another producer where there are no more epochs.
            self.transaction_manager.begin_epoch(response.producer_id, response.producer_epoch)
        super().handle_response(response)


class _Manager(TransactionManager):  # type: ignore[misc]  # the base is untyped
    _lock: Any
    _partitions_in_transaction: set[TopicPartition]
    _pending_txn_offset_commits: dict[TopicPartition, OffsetAndMetadata]
    _sequence_numbers: dict[TopicPartition, int]
    _last_acked_offset: dict[TopicPartition, int]

    def begin_epoch(self, producer_id: int, epoch: int) -> None:
        """Start the numbers of records again, for the next transaction."""
        self.producer_id_and_epoch = ProducerIdAndEpoch(producer_id, epoch)
        self._sequence_numbers.clear()
        self._last_acked_offset.clear()

    @override
    def maybe_add_partition_to_transaction(self, topic_partition: TopicPartition) -> None:
        with self._lock:
            self._fail_if_not_ready_for_send()
            self._partitions_in_transaction.add(topic_partition)
            self._transaction_started = True

    @override
    def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_metadata: Any
    ) -> Any:
        with self._lock:
            self._fail_if_not_ready_for_send()
            waiting = self._pending_txn_offset_commits
            waiting.update(offsets)
            result = TransactionalRequestResult()
            self._enqueue_request(_OffsetCommit(self, group_metadata, waiting, result))
            self._transaction_started = True
            return result

    @override
    def _begin_completing_transaction(self, committed: bool) -> Any:
        end = _End(self, committed)
        self._enqueue_request(end)
        return end.result


class _Sender(Sender):  # type: ignore[misc]  # the base is untyped
    @override
    def _produce_request(self, node_id: int, acks: int, timeout: int, batches: Any) -> Any:
        return _fix_version(super()._produce_request(node_id, acks, timeout, batches), PRODUCE)
