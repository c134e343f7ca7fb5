"""What kafka-python is told, and what its errors mean."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors

from streaming.broker import connection, idempotent_producer, known_brokers, transactional_producer
from streaming.broker.admin import Admin, Topic
from streaming.broker.compat import kafka_internals
from streaming.broker.compat.connection_failures import explain_failure, speaks_tls
from streaming.broker.compat.deadline import DeadlinePassedError, DeadlineThread
from streaming.broker.connection import client_config, retry_until_reached, translate_error
from streaming.broker.group import group_consumer
from streaming.broker.group.group_consumer import GroupConsumer
from streaming.broker.idempotent_producer import IdempotentProducer
from streaming.broker.transactional_producer import TransactionalProducer
from streaming.errors import (
    BrokerRefused,
    BrokerUnavailable,
    Fenced,
    MessageTooLarge,
    PublishFailed,
    RecordsHeld,
    SettingsError,
    StreamingError,
)
from streaming.ports import GroupMetadata
from streaming.records import OutputRecord
from streaming.settings.load import Settings
from streaming.settings.sections import KafkaSettings
from tests.integration.streaming.broker.test_broker import Silent


def test_tls_and_sasl_are_passed_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_require_pem", lambda path: None)
    (tmp_path / "password").write_text("hush\n")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    settings = KafkaSettings(
        bootstrap_servers="one:1, two:2",
        security_protocol="SASL_SSL",
        ssl_cafile=tmp_path / "ca.pem",
        ssl_certfile=tmp_path / "cert.pem",
        ssl_keyfile=tmp_path / "key.pem",
        ssl_password_file=tmp_path / "password",
        ssl_check_hostname=False,
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="bridge",
        sasl_password_file=tmp_path / "password",
    )
    config = client_config(settings, "me")
    assert config["bootstrap_servers"] == ["one:1", "two:2"]
    assert config["ssl_cafile"] == str(tmp_path / "ca.pem")
    assert config["ssl_certfile"] == str(tmp_path / "cert.pem")
    assert config["ssl_keyfile"] == str(tmp_path / "key.pem")
    assert config["ssl_password"] == "hush"
    assert config["ssl_check_hostname"] is False
    assert config["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (config["sasl_plain_username"], config["sasl_plain_password"]) == ("bridge", "hush")
    assert set(config) <= set(KafkaProducer.DEFAULT_CONFIG)
    assert set(config) <= set(KafkaConsumer.DEFAULT_CONFIG)


def test_a_file_that_is_no_certificate_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "truststore.jks").write_bytes(b"\xfe\xed\xfe\xed" * 9)
    settings = KafkaSettings(security_protocol="SSL", ssl_cafile=tmp_path / "truststore.jks")
    with pytest.raises(SettingsError, match="no PEM file"):
        client_config(settings, "me")


@pytest.mark.parametrize(
    ("failure", "part", "is_permanent"),
    [
        ("SaslAuthenticationFailedError: [Error 58]", "refuses the credentials", True),
        ("Handshake failed: [SSL: CERTIFICATE_VERIFY_FAILED] x", "not trusted", True),
        ("Handshake failed: [SSL: WRONG_VERSION_NUMBER] x", "does not speak TLS", True),
        ("DNS lookup failed for kafka:9092", "kafka:9092", False),
        ("ConnectionRefusedError: [Errno 111]", "Errno 111", False),
    ],
)
def test_a_failed_connection_says_its_cause(failure: str, part: str, is_permanent: bool) -> None:
    explained, permanent = explain_failure(failure)
    assert part in explained
    assert permanent is is_permanent


def test_a_certificate_that_is_missing_is_a_wrong_setting(tmp_path: Path) -> None:
    settings = KafkaSettings(security_protocol="SSL", ssl_cafile=tmp_path / "none.pem")
    with pytest.raises(SettingsError, match=r"kafka\.ssl_cafile"):
        client_config(settings, "me")


def test_plain_connections_are_told_nothing_of_it() -> None:
    assert not [key for key in client_config(KafkaSettings(), "me") if key.startswith(("ssl_", "sasl_"))]


class Recorder:
    """Takes the place of a client and remembers its configuration."""

    def __init__(self, **config: Any) -> None:
        self.config = config
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.calls.append(name)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    made: list[Recorder] = []

    def make(**config: Any) -> Recorder:
        made.append(Recorder(**config))
        return made[-1]

    monkeypatch.setattr(group_consumer, "KafkaConsumer", make)
    monkeypatch.setattr(kafka_internals, "prepare_consumer", lambda *_: None)
    monkeypatch.setattr(kafka_internals, "prepare_producer", lambda producer: None)
    monkeypatch.setattr(kafka_internals, "load_metadata", lambda *_: None)
    monkeypatch.setattr(transactional_producer, "KafkaProducer", make)
    monkeypatch.setattr(transactional_producer, "use_transactions_v2", lambda *_: False)
    monkeypatch.setattr(idempotent_producer, "KafkaProducer", make)
    return made


def test_every_client_comes_back_soon_after_the_broker_and_measures_nothing(made: list[Recorder]) -> None:
    settings = Settings()
    GroupConsumer(settings).start(Silent())
    TransactionalProducer(settings, "id", "in", {"decision": Topic("out", 4)}).start()
    IdempotentProducer(settings.kafka, 10)
    assert len(made) == 3
    for client in made:
        assert client.config["reconnect_backoff_max_ms"] <= 1000
        assert client.config["metrics_enabled"] is False
        assert client.config["allow_auto_create_topics"] is False


def test_the_consumer_waits_for_open_transactions_and_shares_nothing(made: list[Recorder]) -> None:
    GroupConsumer(Settings()).start(Silent())
    config = made[0].config
    assert config["isolation_level"] == "read_committed"
    assert config["enable_auto_commit"] is False
    assert config["group_instance_id"] == "bridge-0"
    assert "value_deserializer" not in config
    assert config["heartbeat_interval_ms"] < config["session_timeout_ms"] / 3


@pytest.mark.parametrize(("is_decided", "next_id"), [(True, "group.id.1"), (False, "group.id")])
def test_a_transaction_that_waits_for_a_leader_is_left_behind_once_nothing_can_change_it(
    made: list[Recorder], monkeypatch: pytest.MonkeyPatch, is_decided: bool, next_id: str
) -> None:
    class Asked:
        def __enter__(self) -> "Asked":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def transaction_is_decided(self, transactional_id: str) -> bool:
            assert transactional_id == "group.id"
            return is_decided

    def wait(self: Recorder) -> None:
        raise kafka_errors.KafkaTimeoutError("concurrent transactions")

    sink = TransactionalProducer(Settings(), "group.id", "in", {"decision": Topic("out", 4)})
    monkeypatch.setattr(sink, "_admin", Asked)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "init_transactions", wait, raising=False)
        with pytest.raises(BrokerUnavailable):
            sink.start()
    sink.start()
    assert [client.config["transactional_id"] for client in made] == ["group.id", next_id]


def test_a_partition_without_a_leader_is_waited_for_before_a_transaction_begins_then_held(
    made: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a record has been sent to it, the transaction cannot end before the leader is back."""
    gone = {1, 3}
    monkeypatch.setattr(kafka_internals, "has_leader", lambda client, place: place.partition not in gone)
    monkeypatch.setattr(kafka_internals, "refresh_metadata", lambda client: None)
    monkeypatch.setattr(transactional_producer, "LEADER_PATIENCE_S", 0.3)
    sink = TransactionalProducer(Settings(), "id", "in", {"decision": Topic("out", 4)})
    sink.start()
    outputs = [OutputRecord("decision", n % 4, b"k", b"{}", [], 100 + n // 4) for n in range(8)]
    begun = time.monotonic()
    with pytest.raises(RecordsHeld) as told:
        sink.publish(outputs[:3], {}, GroupMetadata(1))
    assert [(one.partition, one.offset, one.cause) for one in told.value.records] == [(1, 100, "leaderless")]
    assert 0.3 <= time.monotonic() - begun < 2
    with pytest.raises(RecordsHeld) as told:  # the other is not waited for as well
        sink.publish(outputs[3:4], {}, GroupMetadata(1))
    assert time.monotonic() - begun < 2
    assert [one.partition for one in told.value.records] == [3]
    assert "begin_transaction" not in made[0].calls
    threading.Timer(0.1, gone.clear).start()
    sink._leaderless_since.clear()
    sink._wait_for_leaders(sink._group(outputs))  # back in time
    assert not sink._leaderless_since


def test_batches_shrink_whichever_call_says_that_they_are_too_large(
    made: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch may be refused while records for other partitions are still being sent."""
    sink = TransactionalProducer(Settings(), "id", "in", {"decision": Topic("out", 4)})
    sink.start()

    def begin() -> None:
        raise kafka_errors.MessageSizeTooLargeError

    monkeypatch.setattr(made[0], "begin_transaction", begin, raising=False)
    with pytest.raises(MessageTooLarge):
        sink.publish([], {}, GroupMetadata(1))
    sink.start()
    sizes = [client.config["batch_size"] for client in made]
    assert sizes[1] == sizes[0] // 2


def test_the_producer_is_transactional_and_impatient(made: list[Recorder]) -> None:
    TransactionalProducer(Settings(), "group.id", "in", {"decision": Topic("out", 4)}).start()
    config = made[0].config
    assert config["transactional_id"] == "group.id"
    assert config["retry_backoff_ms"] == 2
    assert made[0].calls[0] == "init_transactions"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (kafka_errors.ProducerFencedError(), Fenced),
        (kafka_errors.InvalidProducerEpochError(), Fenced),
        (kafka_errors.FencedInstanceIdError(), Fenced),
        (kafka_errors.KafkaError("Cannot send", kafka_errors.ProducerFencedError()), Fenced),
        (kafka_errors.KafkaError("Cannot send", kafka_errors.InvalidProducerEpochError), Fenced),
        (kafka_errors.MessageSizeTooLargeError(), MessageTooLarge),
        (kafka_errors.TopicAuthorizationFailedError(), BrokerRefused),
        (kafka_errors.SaslAuthenticationFailedError(), BrokerRefused),
        (kafka_errors.UnsupportedVersionError(), BrokerRefused),
        (kafka_errors.KafkaTimeoutError("x"), PublishFailed),
        (kafka_errors.KafkaError("Invalid transition"), PublishFailed),
        (kafka_errors.CorruptRecordError(), PublishFailed),
        (RuntimeError("x"), PublishFailed),
    ],
)
def test_errors_say_what_to_do(error: Exception, kind: type[StreamingError]) -> None:
    assert type(translate_error(error, "Publishing")) is kind


@pytest.mark.parametrize("rights", [(), ("WRITE",), ("DESCRIBE", "WRITE", "READ")])
def test_rights_are_missed_only_where_the_broker_tells_them(rights: tuple[str, ...]) -> None:
    Topic("t", 4, frozenset(rights)).require("WRITE")


def test_a_missing_right_is_named() -> None:
    with pytest.raises(BrokerRefused, match="grant WRITE on it"):
        Topic("t", 4, frozenset({"READ", "DESCRIBE"})).require("WRITE")


def test_an_error_keeps_its_cause_in_sight() -> None:
    try:
        raise kafka_errors.KafkaError("wrapped") from kafka_errors.ProducerFencedError()
    except kafka_errors.KafkaError as error:
        assert type(translate_error(error, "Publishing")) is Fenced


def test_reaching_the_broker_is_tried_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.time, "sleep", lambda seconds: None)
    faults: list[Exception] = [kafka_errors.KafkaTimeoutError("x"), kafka_errors.KafkaConnectionError("y")]

    def attempt() -> str:
        if faults:
            raise faults.pop()
        return "there"

    assert retry_until_reached(attempt, 10, "host:1") == "there"


def test_a_refusal_is_not_tried_again() -> None:
    def attempt() -> None:
        raise kafka_errors.SaslAuthenticationFailedError

    with pytest.raises(BrokerRefused, match="host:1"):
        retry_until_reached(attempt, 10, "host:1")


def test_a_silent_broker_is_given_up() -> None:
    def attempt() -> None:
        raise kafka_errors.KafkaTimeoutError("x")

    with pytest.raises(BrokerUnavailable, match="host:1"):
        retry_until_reached(attempt, 0.0, "host:1")


def test_a_call_that_hangs_is_left_behind() -> None:
    thread = DeadlineThread("test")
    assert thread.call(lambda: 7, 5) == 7
    begun = time.monotonic()
    with pytest.raises(DeadlinePassedError):
        thread.call(lambda: time.sleep(1), 0.05)
    assert time.monotonic() - begun < 0.9
    with pytest.raises(DeadlinePassedError, match="earlier"):
        thread.call(lambda: 7, 5)


def test_a_call_that_times_out_by_itself_is_no_missed_deadline() -> None:
    def call() -> None:
        raise TimeoutError("its own")

    thread = DeadlineThread("test")
    with pytest.raises(TimeoutError, match="its own"):
        thread.call(call, 5)
    assert thread.call(lambda: 7, 5) == 7
    thread.end()


@pytest.fixture
def tls_address(tmp_path: Path) -> Iterator[str]:
    """Yield where a server wants TLS, and closes what is none."""
    files = [str(tmp_path / name) for name in ("key.pem", "certificate.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*command, "-keyout", files[0], "-out", files[1], "-subj", "/CN=x"], check=True, stderr=-3)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    plain, _ = server.accept()
                    with contextlib.suppress(OSError), plain:
                        context.wrap_socket(plain, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_broker_that_wants_tls_is_told_at_once(tls_address: str) -> None:
    begun = time.monotonic()
    with pytest.raises(BrokerRefused, match=r"it wants TLS on this port: set kafka\.security_protocol"):
        Admin(KafkaSettings(bootstrap_servers=tls_address, connect_timeout_s=30))
    assert time.monotonic() - begun < 10


def test_a_server_that_closes_every_connection_is_not_taken_for_one_with_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.listen()
        threading.Thread(target=lambda: [server.accept()[0].close() for _ in range(2)], daemon=True).start()
        assert not speaks_tls([f"127.0.0.1:{server.getsockname()[1]}"])
    assert not speaks_tls(["127.0.0.1:1"])


def test_a_session_that_the_broker_refuses_is_a_wrong_setting() -> None:
    error = translate_error(kafka_errors.InvalidSessionTimeoutError(), "Reading")
    assert isinstance(error, SettingsError)
    assert error.exit_code == 2
    assert "bridge.session_timeout_ms" in str(error)


def test_whatever_connects_anew_asks_the_brokers_that_were_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_brokers, "_met", {})
    settings = KafkaSettings(bootstrap_servers="down:1")
    assert client_config(settings, "me")["bootstrap_servers"] == ["down:1"]
    known_brokers.remember_brokers("down:1", ["two:2", "down:1"])
    known_brokers.remember_brokers("down:1", [])  # a client that knows none tells nothing
    assert client_config(settings, "me")["bootstrap_servers"] == ["two:2", "down:1"]


def test_a_server_that_answers_nothing_is_not_to_be_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BrokerUnavailable, match="It is there, but does not answer in time") as told:
            Admin(KafkaSettings(bootstrap_servers=address, connect_timeout_s=0.5))
    assert "Start it" not in str(told.value)


def test_a_broker_that_closes_every_connection_is_not_to_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it looks where it refuses credentials and is quicker to close than to say so."""
    monkeypatch.setattr(connection.watch_connections(), "since", lambda moment: "socket disconnected")

    def attempt() -> None:
        raise kafka_errors.KafkaTimeoutError("Unable to bootstrap")

    with pytest.raises(BrokerUnavailable, match=r"closes every connection.*kafka\.sasl_username") as told:
        retry_until_reached(attempt, 0.1, "there:1")
    assert "Start it" not in str(told.value)
