"""Defects of kafka-python 3.0.12 that the bridge is built around, each shown first and then survived."""

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.protocol.producer import ProduceRequest
from kafka.record.default_records import DefaultRecordBatch

from streaming.broker.compat import grouped_sends
from streaming.broker.compat.kafka_internals import force_close as drop
from streaming.broker.group.group_consumer import GroupConsumer
from streaming.broker.group.group_membership import KafkaGroupMembership
from streaming.broker.topics import Topics, prepare_topics
from streaming.broker.transactional_producer import TransactionalProducer
from streaming.errors import Fenced, PublishFailed, RecordsHeld, StreamingError
from streaming.records import HeldRecord, InputRecord
from streaming.settings.load import Settings
from tests.e2e.faults import wait_until
from tests.integration.streaming.broker.test_broker import (
    Silent,
    committed,
    drive,
    feed,
    make_sink,
    poll_until,
    publish,
    published,
)
from tests.streaming_fixtures import MakeSettings

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("genuine_broker")]


@pytest.fixture
def settings(fresh_settings: MakeSettings) -> Settings:
    # Short enough for batches to expire within the test.
    return fresh_settings(
        kafka={"request_timeout_s": 1.0},
        bridge={"transaction_deadline_s": 3.0, "transaction_timeout_ms": 8000},
    )


@pytest.fixture
def topics(settings: Settings) -> Topics:
    patient = settings.kafka.model_copy(update={"request_timeout_s": 10.0})
    return prepare_topics(settings.model_copy(update={"kafka": patient}))


@pytest.fixture
def sink(settings: Settings, topics: Topics) -> Iterator[TransactionalProducer]:
    sink = make_sink(settings, topics)
    sink.start()
    yield sink
    sink.close()


class Outage:
    """Produce requests get lost on their way, and after the first the broker cannot be reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = False
        self.lost = 0
        send, ready = KafkaNetClient.send, KafkaNetClient.is_ready

        def lose(client: Any, node: int, request: Any, **names: Any) -> Any:
            if not self.is_on or not isinstance(request, ProduceRequest):
                return send(client, node, request, **names)
            self.lost += 1
            return Future().failure(kafka_errors.KafkaConnectionError("lost"))

        def is_ready(client: Any, *arguments: Any, **names: Any) -> bool:
            return not (self.is_on and self.lost) and ready(client, *arguments, **names)

        monkeypatch.setattr(KafkaNetClient, "send", lose)
        monkeypatch.setattr(KafkaNetClient, "is_ready", is_ready)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(monkeypatch)


def test_an_idempotent_producer_is_wedged_by_a_batch_that_expires_in_retry(
    settings: Settings, topics: Topics, outage: Outage
) -> None:
    """The defect itself: should it be mended one day, this test says so."""
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        transactional_id=f"{settings.bridge.group}.raw",
        delivery_timeout_ms=1500,
        request_timeout_ms=1000,
        metrics_enabled=False,
    )
    producer.init_transactions()
    producer.begin_transaction()

    def send(value: bytes) -> object:
        try:
            return producer.send(settings.topics.output, value=value, partition=0).get(5)
        except kafka_errors.KafkaError as error:
            return type(error)

    assert send(b"0")
    outage.is_on = True
    assert send(b"1") is kafka_errors.KafkaTimeoutError
    assert outage.lost
    outage.is_on = False
    later = [send(b"2"), send(b"3")]
    assert all(isinstance(one, type) for one in later), f"mended: {later}"
    drop(producer)


def test_the_bridge_replaces_a_producer_with_an_expired_batch(
    sink: TransactionalProducer, settings: Settings, outage: Outage
) -> None:
    publish(sink, settings, b"1", offset=1)
    outage.is_on = True
    with pytest.raises(PublishFailed):
        publish(sink, settings, b"2", offset=2)
    assert outage.lost
    outage.is_on = False
    sink.start()
    publish(sink, settings, b"2", offset=2)
    assert published(settings) == [b"1", b"2"]
    assert committed(settings) == {0: 2}


# Polls on after an error.
SPIN = """
consumer.assign([TopicPartition(sys.argv[2], 0)])
try:
    while True:
        consumer.poll(timeout_ms=200)
except Exception:
    print("raised", flush=True)
consumer.poll(timeout_ms=200)
"""

PICKY = """
import sys
from kafka import KafkaConsumer, TopicPartition
from kafka.serializer import Deserializer

class Picky(Deserializer):
    def deserialize(self, topic, headers, value):
        raise ValueError("no deserializer likes this")

consumer = KafkaConsumer(
    bootstrap_servers=sys.argv[1], auto_offset_reset="earliest", value_deserializer=Picky()
)
"""


def assert_spins(setup: str, settings: Settings) -> None:
    # In a process of its own: the call that never returns takes a whole core until it is killed.
    command = [sys.executable, "-c", setup + SPIN, settings.kafka.bootstrap_servers, settings.topics.input]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as spinning:
        assert spinning.stdout
        assert spinning.stdout.readline() == "raised\n"
        with pytest.raises(subprocess.TimeoutExpired):  # else it is mended
            spinning.wait(2)
        spinning.kill()


def test_a_deserializer_that_fails_makes_poll_spin_and_raw_bytes_do_not(
    settings: Settings, topics: Topics
) -> None:
    feed(settings, b"\xff", b"{}")
    assert_spins(PICKY, settings)
    source = GroupConsumer(settings)
    source.start(Silent())
    assert [record.value for record in poll_until(source, 2)] == [b"\xff", b"{}"]
    source.close()


DAMAGED = """
import sys
from kafka import KafkaConsumer, TopicPartition
from kafka.record.default_records import DefaultRecordBatch

DefaultRecordBatch.validate_crc = lambda batch: False
consumer = KafkaConsumer(bootstrap_servers=sys.argv[1], auto_offset_reset="earliest")
"""


def test_a_wrong_checksum_makes_poll_spin_and_holds_its_partition_alone(
    settings: Settings, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(settings, b"sound", partition=0)
    assert_spins(DAMAGED, settings)
    feed(settings, b"damaged", b"behind it", partition=0)
    feed(settings, b"{}", b"{}", partition=1)
    is_sound = DefaultRecordBatch.validate_crc
    monkeypatch.setattr(
        DefaultRecordBatch,
        "validate_crc",
        lambda batch: b"damaged" not in bytes(batch._buffer) and is_sound(batch),
    )
    source = GroupConsumer(settings)
    source.start(Silent())
    found, held = poll_past_held(source, 3)
    assert sorted(record.value or b"" for record in found) == [b"sound", b"{}", b"{}"]
    assert {(one.partition, one.offset, one.cause) for one in held} == {(0, 1, "unreadable")}
    assert "failed crc check" in held[0].error
    monkeypatch.setattr(DefaultRecordBatch, "validate_crc", is_sound)  # another copy is well
    source.release(0)
    assert [record.value for record in poll_until(source, 2)] == [b"damaged", b"behind it"]
    source.close()


def test_a_batch_that_would_fill_the_memory_holds_its_partition_alone(
    settings: Settings, topics: Topics
) -> None:
    small = settings.kafka.model_copy(update={"max_decompressed_bytes": 1_048_576})
    producer = KafkaProducer(
        bootstrap_servers=small.bootstrap_servers, compression_type="gzip", max_request_size=10**8
    )
    producer.send(settings.topics.input, value=b"x" * 20_000_000, partition=0).get(20)
    producer.send(settings.topics.input, value=b"{}", partition=1).get(20)
    producer.close()
    source = GroupConsumer(settings.model_copy(update={"kafka": small}))
    source.start(Silent())
    found, held = poll_past_held(source, 1)
    assert [record.value for record in found] == [b"{}"]
    assert (held[0].partition, held[0].offset) == (0, 0)
    assert "decompresses to more than 1048576 bytes" in held[0].error
    assert "partition 0 before offset 1 (kafka-delete-records)" in held[0].advice
    source.close()


def poll_past_held(source: GroupConsumer, records: int) -> tuple[list[InputRecord], list[HeldRecord]]:
    """Poll until so many records and one held partition are there, as the bridge's loop does."""
    found: list[InputRecord] = []
    held: list[HeldRecord] = []
    deadline = time.monotonic() + 30
    while len(found) < records or not held:
        assert time.monotonic() < deadline, (found, held)
        try:
            found += source.poll(200, 100)
        except RecordsHeld as error:
            held += error.records
            for one in error.records:
                source.hold(one.partition)
    return found, held


def test_sends_have_no_bound_of_their_own(settings: Settings, topics: Topics, outage: Outage) -> None:
    """Why the feed and the pipeline count what is on its way; their bounds have unit tests."""
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        max_block_ms=1000,
        delivery_timeout_ms=60_000,
        metrics_enabled=False,
    )
    producer.send(settings.topics.input, value=b"x", partition=0).get(20)
    outage.is_on, outage.lost = True, 1
    futures = [
        producer.send(settings.topics.input, value=b"x" * 200_000, partition=0) for _ in range(300)
    ]  # 60 MB, where the Java client waits from 32 on
    assert not any(future.is_done for future in futures)
    drop(producer)


def test_an_old_epoch_seen_by_a_send_alone_is_fencing_too_and_leaves_the_successor_alone(
    sink: TransactionalProducer, settings: Settings, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = make_sink(settings, topics)
    append, partitions = grouped_sends._append, itertools.count(1)

    def interrupted(producer: Any, *arguments: Any) -> None:
        if next(partitions) == 4:
            # The partition belongs to the transaction already: only the send itself is left to see it.
            producer.flush(5)
            rival.start()
        append(producer, *arguments)

    monkeypatch.setattr(grouped_sends, "_append", interrupted)
    with pytest.raises(Fenced) as caught:
        publish(sink, settings, *[b"two records for each of four partitions"] * 8)
    monkeypatch.undo()
    assert isinstance(caught.value.__cause__, kafka_errors.InvalidProducerEpochError)
    time.sleep(1.0)  # it is closed when the next one starts: until then it may do something by itself
    publish(rival, settings, b"3", offset=3)
    rival.close()
    assert published(settings) == [b"3"]
    assert committed(settings) == {0: 3}


@pytest.mark.parametrize("version", [1, 2])
def test_a_standstill_beyond_the_transaction_timeout_is_survived(
    version: int, fresh_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has aborted the transaction: it fences in the first version, and says so in the second."""
    drive(version, monkeypatch)
    settings = fresh_settings(bridge={"transaction_deadline_s": 0.9, "transaction_timeout_ms": 1000})
    # A process that stands still does not see its own deadlines pass either.
    patient = settings.bridge.model_copy(update={"transaction_deadline_s": 60.0})
    settings = settings.model_copy(update={"bridge": patient})
    sink = make_sink(settings, prepare_topics(settings))
    sink.start()
    publish(sink, settings, b"1", offset=1)
    commit = KafkaProducer.commit_transaction

    def late(producer: Any) -> Any:
        monkeypatch.undo()
        time.sleep(13)  # the timeout, and the up to 10 s until the broker looks
        return commit(producer)

    monkeypatch.setattr(KafkaProducer, "commit_transaction", late)
    with pytest.raises(PublishFailed) as caught:
        publish(sink, settings, b"lost", offset=2)
    assert isinstance(caught.value, Fenced) == (version == 1), caught.value
    sink.start()
    publish(sink, settings, b"2", offset=2)
    sink.close()
    assert published(settings) == [b"1", b"2"]
    assert committed(settings) == {0: 2}


class Dying(Silent):
    """Is killed while it gives partitions up: they are taken, and nobody calls for the next round."""

    def __init__(self) -> None:
        super().__init__()
        self.is_dead = threading.Event()
        self.is_over = threading.Event()

    def on_revoked(self, partitions: Any) -> None:
        self.is_dead.set()
        self.is_over.wait(60)


def test_a_member_that_dies_while_it_gives_partitions_up_leaves_none_without_a_reader(
    settings: Settings, topics: Topics
) -> None:
    """With cooperative assignment, static membership spared the round that would have assigned them."""
    other = settings.model_copy(
        update={"bridge": settings.bridge.model_copy(update={"instance_id": "other"})}
    )
    dying, end = Dying(), threading.Event()
    sources = [GroupConsumer(one) for one in (settings, other, settings)]

    def polling(source: GroupConsumer) -> None:
        with contextlib.suppress(StreamingError):  # the dead one hears that it is out
            while not end.is_set():
                source.poll(50, 10)

    threads = [threading.Thread(target=polling, args=(source,), daemon=True) for source in sources]

    def start(place: int, listener: Silent) -> None:
        sources[place].start(listener)
        threads[place].start()

    def assigned() -> int:
        return sum(len(source._consumer.assignment()) for source in sources[1:])

    membership = KafkaGroupMembership(settings)
    start(0, dying)
    wait_until(lambda: sources[0].has_joined, 20, "not joined")
    assert len(sources[0]._consumer.assignment()) == 4
    assert not membership.unassigned_partitions()
    start(1, Silent())
    wait_until(dying.is_dead.is_set, 20, "nothing was given up")
    start(2, Silent())
    wait_until(lambda: assigned() == 4, 20, "partitions are left without a reader")
    wait_until(lambda: not membership.unassigned_partitions(), 5, "seen although it is over")
    end.set()
    dying.is_over.set()
    for thread, source in zip(threads, sources, strict=True):
        thread.join(20)
        source.close()
    membership.close()
