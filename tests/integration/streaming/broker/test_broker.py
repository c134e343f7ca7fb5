"""kafka-python's defects and the broker's ways, each reproduced against a real broker."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, MemberToRemove
from kafka.net.compat import KafkaNetClient
from kafka.producer.transaction_manager import TransactionManager

from streaming.broker import transactional_producer
from streaming.broker.group.group_consumer import GroupConsumer
from streaming.broker.group.group_membership import KafkaGroupMembership
from streaming.broker.group.group_snapshot import group_metadata_without_member
from streaming.broker.idempotent_producer import IdempotentProducer
from streaming.broker.range_reader import RangeReader
from streaming.broker.topics import Topics, prepare_topics
from streaming.broker.transactional_producer import TransactionalProducer
from streaming.errors import (
    BrokerRefused,
    BrokerUnavailable,
    Fenced,
    MessageTooLarge,
    NotInGroup,
    PublishFailed,
    SettingsError,
)
from streaming.ports import RebalanceListener
from streaming.records import InputRecord, NextOffset, OutputRecord
from streaming.settings.load import Settings
from tests.e2e.faults import read_topic, wait_until
from tests.streaming_fixtures import MakeSettings

# The requests of a transaction beside its records: version, kafka-python's name.
REQUESTS = [
    *((1, "AddPartitionsToTxnHandler"), (1, "AddOffsetsToTxnHandler"), (1, "TxnOffsetCommitHandler")),
    *((1, "EndTxnHandler"), (2, "_OffsetCommit"), (2, "_End")),
]
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("genuine_broker")]


class Silent(RebalanceListener):
    def __init__(self) -> None:
        self.told: list[str] = []

    def on_assigned(self, partitions: Any) -> None:
        self.told.append("assigned")

    def on_revoked(self, partitions: Any) -> None:
        self.told.append("revoked")

    def on_lost(self, partitions: Any) -> None:
        self.told.append("lost")


@pytest.fixture
def settings(fresh_settings: MakeSettings) -> Settings:
    return fresh_settings()


@pytest.fixture
def topics(settings: Settings) -> Topics:
    return prepare_topics(settings)


def make_sink(settings: Settings, topics: Topics, identity: str = "sink") -> TransactionalProducer:
    topics_by_kind = {"decision": topics.output, "dead_letter": topics.dead_letter}
    name = f"{settings.bridge.group}.{identity}"
    return TransactionalProducer(settings, name, settings.topics.input, topics_by_kind)


def drive(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drive this version of Kafka's transactions; the broker has both."""
    if version == 1:
        monkeypatch.setattr(transactional_producer, "use_transactions_v2", lambda *_: False)


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    number: int = request.param
    drive(number, monkeypatch)
    return number


@pytest.fixture
def sink(settings: Settings, topics: Topics) -> Iterator[TransactionalProducer]:
    sink = make_sink(settings, topics)
    sink.start()
    yield sink
    sink.close()


def publish(sink: TransactionalProducer, settings: Settings, *values: bytes, offset: int = 1) -> None:
    outputs = [OutputRecord("decision", place % 4, b"k", value) for place, value in enumerate(values)]
    sink.publish(outputs, {0: NextOffset(offset)}, group_metadata_without_member(settings.bridge.group))


def published(settings: Settings) -> list[bytes]:
    return sorted(
        seen.value or b"" for seen in read_topic(settings.kafka.bootstrap_servers, settings.topics.output)
    )


def committed(settings: Settings) -> dict[int, int]:
    with RangeReader(settings.kafka, settings.bridge.group) as reader:
        return reader.committed(settings.topics.input)


def set_limit(settings: Settings, topic: str, size: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})])
    admin.close()


def test_records_and_offsets_arrive_together(
    version: int, sink: TransactionalProducer, settings: Settings
) -> None:
    publish(sink, settings, b"1", b"2", b"3", offset=7)
    assert published(settings) == [b"1", b"2", b"3"]
    assert committed(settings) == {0: 7}


def test_an_empty_transaction_commits_offsets(
    version: int, sink: TransactionalProducer, settings: Settings
) -> None:
    publish(sink, settings, offset=9)
    assert committed(settings) == {0: 9}


def drop_once(monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception) -> list[str]:
    """Let the coordinator seem to refuse the connection when a request of a kind is first sent.

    That is what happens while a broker restarts; kafka-python then forgets the request.
    """
    dropped: list[str] = []
    pending: list[str] = []
    next_handler, await_ready = TransactionManager.next_request_handler, KafkaNetClient.await_ready

    def remember(self: Any, has_incomplete: bool) -> Any:
        handler = next_handler(self, has_incomplete)
        if handler is not None:
            pending[:] = [type(handler).__name__]
        return handler

    def refuse(self: Any, *arguments: Any, **names: Any) -> Any:
        if pending == [kind] and not dropped:
            dropped.append(kind)
            raise error
        return await_ready(self, *arguments, **names)

    monkeypatch.setattr(TransactionManager, "next_request_handler", remember)
    monkeypatch.setattr(KafkaNetClient, "await_ready", refuse)
    return dropped


@pytest.mark.parametrize(("version", "kind"), REQUESTS, indirect=["version"])
def test_a_transactional_call_that_hangs_for_ever_has_a_deadline(
    version: int,
    kind: str,
    fresh_settings: MakeSettings,
    genuine_broker: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = fresh_settings(bridge={"transaction_deadline_s": 2.0})
    sink = make_sink(settings, prepare_topics(settings))
    sink.start()
    publish(sink, settings, b"1", offset=1)
    dropped = drop_once(monkeypatch, kind, kafka_errors.KafkaError("an unforeseen one"))
    begun = time.monotonic()
    with pytest.raises(PublishFailed):
        publish(sink, settings, b"2", offset=2)
    assert dropped, "the fault was not met"
    assert 1.5 < time.monotonic() - begun < 4.0
    sink.start()
    assert committed(settings) == {0: 1}
    publish(sink, settings, b"2", offset=2)
    assert published(settings) == [b"1", b"2"]
    assert committed(settings) == {0: 2}
    sink.close()


@pytest.mark.parametrize(("version", "kind"), REQUESTS, indirect=["version"])
def test_a_request_is_repeated_whose_coordinator_could_not_be_reached(
    version: int, kind: str, sink: TransactionalProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a broker restarts: kafka-python forgets the request, and the call waited for its deadline."""
    publish(sink, settings, b"1", offset=1)
    dropped = drop_once(monkeypatch, kind, kafka_errors.KafkaConnectionError("refused"))
    begun = time.monotonic()
    publish(sink, settings, b"2", offset=2)
    assert dropped, "the fault was not met"
    assert time.monotonic() - begun < 3
    assert published(settings) == [b"1", b"2"]
    assert committed(settings) == {0: 2}


def test_starting_has_a_deadline_too(
    settings: Settings, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KafkaProducer, "init_transactions", lambda self: threading.Event().wait(60))
    short = settings.model_copy(
        update={"kafka": settings.kafka.model_copy(update={"request_timeout_s": 0.5})}
    )
    with pytest.raises(BrokerUnavailable):
        make_sink(short, topics).start()


def test_a_commit_is_not_trusted_when_a_send_has_failed(
    sink: TransactionalProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = KafkaProducer.send

    def failing(self: Any, *arguments: Any, **names: Any) -> Any:
        future = send(self, *arguments, **names)
        failed: Any = type(future)(type(future._produce_future)(None), 0, 0, None, 0, 0, 0)
        return failed.failure(kafka_errors.KafkaTimeoutError("expired")) if names["value"] == b"2" else future

    monkeypatch.setattr(KafkaProducer, "send", failing)
    with pytest.raises(PublishFailed):
        publish(sink, settings, b"1", b"2")
    monkeypatch.undo()
    sink.start()
    assert published(settings) == []
    assert committed(settings) == {}


def test_a_topic_that_refuses_for_a_while_loses_nothing(
    genuine_broker: str, sink: TransactionalProducer, settings: Settings
) -> None:
    set_limit(settings, settings.topics.output, 100)
    with pytest.raises(MessageTooLarge):
        publish(sink, settings, b"x" * 500, b"small")
    set_limit(settings, settings.topics.output, 1_000_000)
    sink.start()
    publish(sink, settings, b"x" * 500, b"small")
    assert published(settings) == [b"small", b"x" * 500]


def test_batches_shrink_until_a_topic_takes_them_whose_limit_is_not_told(
    genuine_broker: str, sink: TransactionalProducer, settings: Settings
) -> None:
    set_limit(settings, settings.topics.output, 60_000)
    values = [b"%03d" % number + b"x" * 700 for number in range(800)]
    for _ in range(3):  # 262,144 bytes, halved
        with pytest.raises(MessageTooLarge):
            publish(sink, settings, *values)
        sink.start()
    publish(sink, settings, *values)
    assert published(settings) == values


def test_a_rival_fences_a_later_transaction(
    version: int, sink: TransactionalProducer, settings: Settings, topics: Topics
) -> None:
    publish(sink, settings, b"1")
    rival = make_sink(settings, topics)
    rival.start()
    with pytest.raises(Fenced):
        publish(sink, settings, b"2", offset=2)
    publish(rival, settings, b"3", offset=3)
    rival.close()
    assert published(settings) == [b"1", b"3"]
    assert committed(settings) == {0: 3}


@pytest.mark.parametrize("moment", ["send_offsets_to_transaction", "commit_transaction"])
def test_a_rival_fences_an_open_transaction(
    version: int,
    moment: str,
    genuine_broker: str,
    sink: TransactionalProducer,
    settings: Settings,
    topics: Topics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(sink, settings, b"1")
    rival = make_sink(settings, topics)
    call = getattr(KafkaProducer, moment)

    def interrupted(self: Any, *arguments: Any) -> Any:
        monkeypatch.undo()
        rival.start()
        return call(self, *arguments)

    monkeypatch.setattr(KafkaProducer, moment, interrupted)
    with pytest.raises(Fenced):
        publish(sink, settings, b"2", offset=2)
    rival.close()
    assert published(settings) == [b"1"]
    assert committed(settings) == {0: 1}


def test_a_successor_aborts_what_was_open(
    version: int,
    genuine_broker: str,
    sink: TransactionalProducer,
    settings: Settings,
    topics: Topics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KafkaProducer, "commit_transaction", lambda self: None)
    publish(sink, settings, b"lost")
    monkeypatch.undo()
    successor = make_sink(settings, topics)
    successor.start()
    begun = time.monotonic()
    assert published(settings) == []
    assert committed(settings) == {}
    assert time.monotonic() - begun < 5
    successor.close()


def feed(settings: Settings, *values: bytes | None, partition: int = 0) -> None:
    sender = IdempotentProducer(settings.kafka, 10)
    for value in values:
        sender.send(settings.topics.input, b"k", value or b"", partition=partition)
    sender.flush()
    sender.close()


def poll_until(source: GroupConsumer, count: int) -> list[InputRecord]:
    found: list[InputRecord] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        found += source.poll(200, 100)
    return found


def test_a_join_that_outlasts_a_poll_is_not_forgotten(settings: Settings, topics: Topics) -> None:
    feed(settings, b"0")
    source = GroupConsumer(settings)
    source.start(Silent())
    deadline = time.monotonic() + 20
    # Each poll ends long before the coordinator answers; the second join, for the metadata, was forgotten.
    while not source.poll(1, 10) and time.monotonic() < deadline:
        pass
    assert source.lags()
    source.close()


def test_bytes_that_no_deserializer_likes_come_as_they_are(settings: Settings, topics: Topics) -> None:
    feed(settings, b"\xff\x00", b"", b"{}")
    source = GroupConsumer(settings)
    source.start(Silent())
    assert [r.value for r in poll_until(source, 3)] == [b"\xff\x00", b"", b"{}"]
    assert sum(source.lags().values()) == 0
    source.close()


def test_rewinding_goes_back_to_what_is_committed_or_to_the_first_record(
    sink: TransactionalProducer, settings: Settings
) -> None:
    feed(settings, b"0", b"1", b"2")
    source = GroupConsumer(settings)
    source.start(Silent())
    assert len(poll_until(source, 3)) == 3
    source.rewind()
    assert [r.offset for r in poll_until(source, 3)] == [0, 1, 2]
    sink.publish([], {0: NextOffset(2)}, source.group_metadata())
    source.rewind()
    assert [r.offset for r in poll_until(source, 1)] == [2]
    source.close()


def test_pausing_keeps_the_membership_and_loses_nothing(settings: Settings, topics: Topics) -> None:
    feed(settings, b"0")
    source = GroupConsumer(settings)
    source.start(Silent())
    assert len(poll_until(source, 1)) == 1
    source.pause()
    feed(settings, b"1")
    assert all(not source.poll(100, 10) for _ in range(5))
    source.resume()
    assert [r.value for r in poll_until(source, 1)] == [b"1"]
    source.close()


def test_aborted_transactions_of_the_input_are_not_read(
    genuine_broker: str, settings: Settings, topics: Topics
) -> None:
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers, transactional_id=settings.bridge.group
    )
    producer.init_transactions()
    for value, end in ((b"no", producer.abort_transaction), (b"yes", producer.commit_transaction)):
        producer.begin_transaction()
        producer.send(settings.topics.input, value=value, partition=0)
        producer.flush(10)
        end()
    producer.close(timeout=2)
    source = GroupConsumer(settings)
    source.start(Silent())
    assert [r.value for r in poll_until(source, 1)] == [b"yes"]
    source.close()


def test_an_evicted_member_is_noticed_and_cannot_commit(
    genuine_broker: str, sink: TransactionalProducer, settings: Settings
) -> None:
    feed(settings, b"0", b"1")
    source = GroupConsumer(settings)
    source.start(Silent())
    poll_until(source, 2)
    before = source.group_metadata()
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    admin.remove_group_members(settings.bridge.group, [MemberToRemove(group_instance_id="a")])
    admin.close()

    def has_noticed() -> bool:
        try:
            source.poll(100, 10)
        except NotInGroup:
            return True
        with contextlib.suppress(NotInGroup):  # told by the next poll
            return source.group_metadata() != before  # it may join anew within one poll
        return False

    wait_until(has_noticed, 60, "not noticed")
    with pytest.raises(PublishFailed):
        sink.publish([], {0: NextOffset(1)}, before)
    sink.start()
    source.rewind()
    assert [r.offset for r in poll_until(source, 2)] == [0, 1]
    sink.publish([], {0: NextOffset(2)}, source.group_metadata())
    source.close()


def test_before_joining_there_is_no_membership(settings: Settings, topics: Topics) -> None:
    source = GroupConsumer(settings)
    source.start(Silent())
    with pytest.raises(NotInGroup):
        source.group_metadata()
    source.close()


def test_the_guard_sees_who_holds_an_instance_id_and_leaves_for_good(
    genuine_broker: str, settings: Settings, topics: Topics
) -> None:
    feed(settings, b"0")
    membership, source, rival = (
        KafkaGroupMembership(settings),
        GroupConsumer(settings),
        GroupConsumer(settings),
    )
    source.start(Silent())
    poll_until(source, 1)
    ours = source.group_metadata()
    assert not membership.is_taken(ours)
    rival.start(Silent())
    wait_until(lambda: not rival.poll(200, 10) and membership.is_taken(ours), 20, "the rival was not seen")
    membership.leave(source.member_id)  # an old bridge that ends late does not evict its successor
    assert membership.is_taken(ours)
    membership.leave(rival.member_id)
    assert not membership.is_taken(ours)
    membership.close()
    for one in (source, rival):
        one.close()


def test_topics_are_created_with_the_inputs_partitions_and_room_for_dead_letters(
    genuine_broker: str, fresh_settings: MakeSettings
) -> None:
    settings = fresh_settings(topics={"partitions": 3})
    for topics in (prepare_topics(settings), prepare_topics(settings)):
        assert (topics.input.partitions, topics.output.partitions, topics.dead_letter.partitions) == (3, 3, 3)
        assert topics.max_dead_letter_bytes == settings.topics.max_message_bytes


def test_missing_topics_are_an_error_where_they_must_not_be_created(fresh_settings: MakeSettings) -> None:
    settings = fresh_settings(topics={"create_missing": False})
    with pytest.raises(BrokerRefused, match=r"topics\.create_missing"):
        prepare_topics(settings)


def test_a_range_has_bounds_of_three_kinds(settings: Settings, topics: Topics) -> None:
    feed(settings, b"0", b"1", b"2")
    feed(settings, b"x", partition=2)
    with RangeReader(settings.kafka) as reader:
        topic = settings.topics.input
        assert reader.resolve(topic, "latest") == {0: 3, 1: 0, 2: 1, 3: 0}
        assert reader.resolve(topic, "2") == {0: 2, 1: 0, 2: 1, 3: 0}
        assert reader.resolve(topic, "2020-01-01T00:00:00") == reader.resolve(topic, "earliest")
        assert reader.resolve(topic, "2100-01-01T00:00:00Z") == reader.resolve(topic, "latest")
        chunks = list(reader.read(topic, {0: 1, 1: 0, 2: 0, 3: 0}, {0: 3, 1: 0, 2: 1, 3: 0}))
        assert sorted(r.value or b"" for chunk in chunks for r in chunk) == [b"1", b"2", b"x"]
        for bound in ("yesterday", "-1", ""):
            with pytest.raises(SettingsError):
                reader.resolve(topic, bound)
        with pytest.raises(SettingsError, match="does not exist"):
            reader.resolve("no-such-topic", "latest")
