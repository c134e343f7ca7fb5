import json

import pytest

from streaming.bridge import publisher as publisher_module
from streaming.bridge.batch import Batch
from streaming.bridge.publisher import Publisher, RecordSizeLimits
from streaming.bridge_state import BridgeState
from streaming.errors import MessageTooLarge, NotInGroup
from streaming.observability.metrics import Metrics
from streaming.records import InputRecord, Outcome, Rejection, ServiceDecision
from tests.fakes import TOPIC, FakeBroker, FakeSink, FakeSource

APPROVED = ServiceDecision(b'{"transaction_id":"T","decision":"approve","release":"7"}', "approve", "7")
REFUSED = Rejection("validate", "missing", "V1: required", 2)


def publish(record: InputRecord, outcome: Outcome, limits: RecordSizeLimits | None = None) -> FakeBroker:
    broker = FakeBroker()
    publisher = Publisher(
        FakeSource(broker),
        FakeSink(broker),
        lambda: limits or RecordSizeLimits(20_000, 20_000),
        Metrics(),
        BridgeState(),
    )
    publisher([(Batch([record]), [outcome])])
    return broker


def record(key: bytes | None = b"k", value: bytes | None = b"{}") -> InputRecord:
    return InputRecord(TOPIC, 1, 41, 0, key, value)


def test_a_decision_keeps_its_key_and_names_its_source() -> None:
    broker = publish(record(), APPROVED)
    (output,) = broker.outputs
    assert (output.kind, output.key, output.partition) == ("decision", b"k", 1)
    found = json.loads(output.value)
    assert found["source"] == {"topic": TOPIC, "partition": 1, "offset": 41}
    assert found["decided_at_ms"] > 1.6e12
    assert (found["decision"], found["release"], found["transaction_id"]) == ("approve", "7", "T")
    assert broker.committed == {1: 42}


def test_a_dead_letter_keeps_its_bytes_and_says_why() -> None:
    (output,) = publish(record(b"\xff", b"\x00\xff{"), REFUSED).outputs
    assert (output.kind, output.key, output.value) == ("dead_letter", b"\xff", b"\x00\xff{")
    headers = {name: value.decode() for name, value in output.headers}
    assert int(headers.pop("error.at_ms")) > 1.6e12
    assert headers == {
        "error.topic": TOPIC,
        "error.partition": "1",
        "error.offset": "41",
        "error.stage": "validate",
        "error.reason": "missing",
        "error.message": "V1: required",
        "error.attempts": "2",
    }


@pytest.mark.parametrize(("key", "value"), [(None, b""), (b"", None), (b"k", None)])
def test_a_tombstone_keeps_its_null_where_kafka_takes_it(key: bytes | None, value: bytes | None) -> None:
    (output,) = publish(
        record(key, None), Rejection("parse", "tombstone", "The record has no value.")
    ).outputs
    assert (output.key, output.value) == (key, value)


@pytest.mark.parametrize("outcome", [APPROVED, REFUSED])
def test_headers_of_the_input_are_carried_on(outcome: Outcome) -> None:
    headers = [("traceparent", b"00-1"), ("error.offset", b"7")]
    (output,) = publish(InputRecord(TOPIC, 1, 41, 0, b"k", b"{}", headers), outcome).outputs
    assert ("traceparent", b"00-1") in output.headers
    assert ("error.offset", b"7") not in output.headers


def test_a_limit_that_no_decision_fits_is_a_fault_of_the_topic() -> None:
    with pytest.raises(MessageTooLarge, match=r"max\.message\.bytes"):
        publish(record(), APPROVED, RecordSizeLimits(100, 20_000))


def test_a_limit_that_was_low_for_a_moment_files_nothing_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "LIMITS_MAX_AGE_S", 0.0)
    broker, limits = FakeBroker(), [RecordSizeLimits(20_000, 20_000), RecordSizeLimits(100, 100)]
    source, sink = FakeSource(broker), FakeSink(broker)
    publisher = Publisher(source, sink, limits.pop, Metrics(), BridgeState())
    publisher([(Batch([record()]), [APPROVED])])
    assert [output.kind for output in broker.outputs] == ["decision"]


def test_a_letter_is_kept_whole_where_the_limit_is_not_told() -> None:
    (output,) = publish(record(value=b"x" * 10**6), REFUSED, RecordSizeLimits(None, None)).outputs
    assert output.value == b"x" * 10**6


def test_a_dead_letter_above_the_topics_limit_goes_without_its_bytes() -> None:
    (output,) = publish(record(value=b"x" * 20_000), REFUSED, RecordSizeLimits(20_000, 20_000)).outputs
    assert (output.key, output.value) == (None, b"")
    assert dict(output.headers)["error.omitted"] == b"key,value"
    assert dict(output.headers)["error.offset"] == b"41"


def test_a_decision_above_the_topics_limit_is_a_dead_letter() -> None:
    (output,) = publish(record(key=b"k" * 20_000), APPROVED, RecordSizeLimits(20_000, 40_000)).outputs
    assert output.kind == "dead_letter"
    assert output.key == b"k" * 20_000
    assert dict(output.headers)["error.reason"] == b"decision_too_large"


def test_long_messages_are_cut() -> None:
    (output,) = publish(record(), Rejection("classify", "x", "é" * 10_000)).outputs
    assert len(dict(output.headers)["error.message"].decode()) == 500


def test_outside_the_group_nothing_is_published() -> None:
    broker = FakeBroker()
    source = FakeSource(broker)
    source.is_joined = False
    publisher = Publisher(
        source, FakeSink(broker), lambda: RecordSizeLimits(20_000, 20_000), Metrics(), BridgeState()
    )
    with pytest.raises(NotInGroup):
        publisher([(Batch([record()]), [APPROVED])])
    assert not broker.outputs
