# ruff: noqa: ANN401  # kafka-python is untyped, and this is where its private parts are used
"""The private parts of kafka-python 3.0 that the bridge needs: all in one place, each checked.

`check` fails when an upgrade of kafka-python has moved one of them. Each function says what it works around.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.cluster import ClusterMetadata
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.base import BaseCoordinator
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import LeaderNotAvailableError
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.producer.future import FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import TransactionManager, TxnOffsetCommitHandler
from kafka.protocol.api_message import ApiMessage
from kafka.structs import MemberState, OffsetAndMetadata
from typing_extensions import override

from streaming.broker.compat.bounded_decompression import bound_decompression
from streaming.broker.compat.embedded_broker import find_ends, is_embedded
from streaming.broker.compat.unreadable_batches import locate_unreadable_batches
from streaming.errors import BrokerRefused

# The default of 10 s holds a whole client up while one broker does not answer.
CONNECT_TIMEOUT_MS = 3_000

# Class to the names that this module uses; methods are looked up in the class, the rest in its code.
_NEEDED: dict[type, tuple[str, ...]] = {
    BaseCoordinator: (
        *("join_group_async", "request_rejoin", "need_rejoin", "_enable_heartbeat", "_lock"),
        *("_join_task", "_generation", "rejoining", "rejoin_needed", "_on_join_complete_async"),
    ),
    ConsumerCoordinator: ("_subscription", "_on_join_complete_async"),
    ClusterMetadata: (
        *("topic_id", "cluster_id", "config", "request_update", "set_topics"),
        *("metadata_refresh_in_progress", "partitions_for_topic"),
        *("leader_for_partition", "brokers"),
    ),
    KafkaConsumer: ("_coordinator", "_cluster", "_fetcher", "_subscription", "_manager", "_net"),
    KafkaProducer: ("_sender", "_closed", "_metadata", "_accumulator", "_transaction_manager"),
    TransactionManager: (
        *("_supports_epoch_bump", "_lock", "_fail_if_not_ready_for_send", "_enqueue_request"),
        *("_begin_completing_transaction", "maybe_add_partition_to_transaction", "producer_id_and_epoch"),
        *("_partitions_in_transaction", "_pending_txn_offset_commits", "_transaction_started"),
        *("_sequence_numbers", "_last_acked_offset", "_transaction_coordinator"),
    ),
    TxnOffsetCommitHandler: ("_build_request",),
    ApiMessage: ("_min_version", "_max_version"),
    Sender: ("force_close", "_client", "_can_split", "wakeup", "_produce_request"),
    KafkaConnectionManager: ("call_soon", "send"),
    RecordAccumulator: (
        *("_batches", "_tp_lock", "_incomplete", "_appends_in_progress", "_closed", "config"),
    ),
    ProducerBatch: ("records", "produce_future"),
    FutureRecordMetadata: ("_produce_future",),
    KafkaNetClient: ("await_ready", "_manager"),
    Fetcher: ("PartitionRecords", "_parse_fetched_data"),
}


def check() -> None:
    """Make sure that kafka-python has the private parts that this module uses.

    Raises
    ------
    BrokerRefused
        If one is missing: the installed version of kafka-python does not fit.
    """
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in _NEEDED.items()
        for name in names
        if not _has(owner, name)
    ]
    if missing:
        raise BrokerRefused(
            f"The installed kafka-python lacks {', '.join(missing)}: install the version of constraints.txt."
        )


def _has(owner: type, name: str) -> bool:
    constructor = vars(owner).get("__init__")
    return hasattr(owner, name) or name in getattr(getattr(constructor, "__code__", None), "co_names", ())


class _PatientCoordinator(ConsumerCoordinator):  # type: ignore[misc]  # the base is untyped
    """Uses a join that finished between two polls.

    kafka-python 3.0.12 throws such a join away and sends another one. A consumer that is polled with a
    short timeout then joins late or never (measured: 4.2 s at 100 ms, not within 30 s at 0 ms).
    """

    _join_task: Any
    state: Any

    @override
    async def join_group_async(self, timeout_ms: float | None = None) -> bool:
        task = self._join_task
        if (
            task is None
            or not task.is_done
            or not task.succeeded()
            or self.state is not MemberState.REBALANCING
        ):
            return bool(await super().join_group_async(timeout_ms))
        self._join_task = None
        with self._lock:
            self.rejoining = False
            self.rejoin_needed = False
            self.state = MemberState.STABLE
            self._enable_heartbeat()
        generation = self._generation
        await self._on_join_complete_async(
            generation.generation_id, generation.member_id, generation.protocol, task.value
        )
        return True


def prepare_consumer(consumer: Any, max_decompressed_bytes: int) -> None:
    """Mend a new consumer.

    It keeps finished joins, never creates a topic by asking for its metadata, decompresses no batch to more
    than `max_decompressed_bytes`, and raises `UnreadableBatchError` for one that it cannot read.
    """
    forbid_topic_creation(consumer)
    consumer._coordinator.__class__ = _PatientCoordinator
    consumer._manager.config["socket_connection_setup_timeout_ms"] = CONNECT_TIMEOUT_MS
    bound_decompression(max_decompressed_bytes)
    locate_unreadable_batches(consumer)


def forbid_topic_creation(consumer: Any) -> None:
    """Let a new consumer never create a topic by asking for its metadata.

    The consumer's setting `allow_auto_create_topics` is not passed on to its metadata requests. A deleted
    topic would come back at once, with the broker's number of partitions and settings.
    """
    check()
    consumer._cluster.config["allow_auto_create_topics"] = False


def prepare_producer(producer: Any) -> None:
    """Mend a new producer.

    It never creates a topic by asking for its metadata, and repeats a request for which its coordinator could
    not be reached: kafka-python 3.0.12 forgets that request, and the call waits for ever.
    """
    check()
    producer._metadata.config["allow_auto_create_topics"] = False
    client = producer._sender._client
    client._manager.config["socket_connection_setup_timeout_ms"] = CONNECT_TIMEOUT_MS

    def return_whether_ready(node_id: int, timeout_ms: float = 30_000) -> bool:
        try:
            return bool(KafkaNetClient.await_ready(client, node_id, timeout_ms=timeout_ms))
        except kafka_errors.KafkaConnectionError:
            return False

    client.await_ready = return_whether_ready


def forbid_epoch_bumps(producer: Any) -> None:
    """Let a transactional producer fail for good where kafka-python would ask for a new epoch by itself.

    When the broker refuses its epoch in a send, kafka-python 3.0.12 asks for another; when that is refused
    too, since a successor has a newer one, it registers anew. So a producer that was rightly fenced fences
    its successor while it is being closed. The bridge makes a new producer after any failure.
    """
    producer._transaction_manager._supports_epoch_bump = lambda: False


def has_leader(client: Any, tp: TopicPartition) -> bool:
    """Return whether a consumer or producer believes that a partition has a leader; True where unknown."""
    return bool(_cluster(client).leader_for_partition(tp) != -1)


def load_metadata(consumer: Any, topic: str, timeout_ms: float) -> None:
    """Wait for a topic's metadata, so that the first assignment already knows its partitions.

    Raises
    ------
    kafka.errors.KafkaError
        If the broker does not answer in time.
    """
    future = consumer._cluster.set_topics([topic])
    consumer._net.run(consumer._manager.wait_for, future, timeout_ms)


def request_rejoin(consumer: Any) -> None:
    """Let the next poll ask the group to assign its partitions again."""
    consumer._coordinator.request_rejoin()


def keep_joining(consumer: Any) -> None:
    """Ask again for a join that kafka-python has forgotten.

    When new metadata make the leader join again and a poll ends before the answer is there, kafka-python
    3.0.12 forgets the join: no assignment and no heartbeat from then on.
    """
    coordinator = consumer._coordinator
    if consumer.group_metadata().state == MemberState.REBALANCING and not coordinator.need_rejoin():
        coordinator.request_rejoin()


def last_heartbeat(consumer: Any) -> float:
    """Return when the group's coordinator last answered, by ``time.monotonic()``."""
    heartbeat = consumer._coordinator.heartbeat
    return float(max(heartbeat.last_receive, heartbeat.last_reset))


def topic_id(consumer: Any, topic: str) -> str:
    """Return the id of a topic, which changes when it is made again; empty when the broker has none."""
    found = consumer._cluster.topic_id(topic)
    # The answer for a topic that does not exist carries the id 0, which kafka-python keeps as any other.
    return "" if found is None or found.int == 0 else str(found)


def load_topic_ids(consumer: Any, topics: Iterable[str], timeout_ms: float) -> dict[str, str | None]:
    """Ask the broker for the ids of topics: empty where it tells none, None where there is no such topic.

    Raises
    ------
    kafka.errors.KafkaError
        If the broker does not answer in time.
    """
    cluster = consumer._cluster
    # An answer under way may be older than this call: it is waited for, and the question asked again.
    for _ in range(1 + cluster.metadata_refresh_in_progress):
        consumer._net.run(consumer._manager.wait_for, cluster.request_update(), timeout_ms)
    return {
        topic: topic_id(consumer, topic) if cluster.partitions_for_topic(topic) else None for topic in topics
    }


def list_offsets(
    question: Callable[..., dict[TopicPartition, int]], tps: list[TopicPartition], timeout_ms: float
) -> dict[TopicPartition, int]:
    """Ask ``beginning_offsets`` or ``end_offsets`` of a consumer.

    kafka-python 3.0.12 leaves partitions out whose leader it does not know, and then looks for their offsets.
    What the embedded broker tells of ends is put right.

    Raises
    ------
    kafka.errors.KafkaError
        If the broker does not answer in time, or does not know one of the partitions.
    """
    consumer = getattr(question, "__self__", None)
    try:
        found = question(tps, timeout_ms=timeout_ms)
        if is_embedded(consumer) and question.__name__ == "end_offsets":
            return find_ends(consumer, found, timeout_ms)
        return found
    except KeyError as error:
        raise LeaderNotAvailableError(f"{error.args[0]} has no leader, or does not exist") from error


def refresh_metadata(client: Any) -> None:
    """Let a consumer or producer ask for metadata soon."""
    _cluster(client).request_update()


def seek(consumer: Any, partition: TopicPartition, offset: int, leader_epoch: int) -> None:
    """Go to an offset, and check it against the leader's log where the epoch is known (KIP-320).

    The public ``seek()`` takes no epoch, so that a log that was cut and has grown again would go unnoticed.
    """
    state = consumer._subscription.assignment[partition]
    state.seek(OffsetAndMetadata(offset, "", leader_epoch))


def known_servers(client: Any) -> list[str]:
    """Return host:port of the brokers that a consumer or producer knows of."""
    with contextlib.suppress(Exception):
        return [f"{broker.host}:{broker.port}" for broker in _cluster(client).brokers()]
    return []


def _cluster(client: Any) -> Any:
    return client._metadata if isinstance(client, KafkaProducer) else client._cluster


def force_close(producer: Any) -> None:
    """End a producer at once, its I/O thread included; whatever it raises is of no interest."""
    # With records in flight a close without patience raises, and that is what is wanted here.
    with contextlib.suppress(Exception):
        producer.close(timeout=0)
    with contextlib.suppress(Exception):
        # That close gives up at its flush: end the I/O thread too, and keep the finalizer from trying again.
        producer._sender.force_close()
        producer._closed = True
