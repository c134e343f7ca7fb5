import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from streaming.errors import SettingsError
from streaming.settings.bridge import BridgeSettings
from streaming.settings.load import DEFAULT_FILE, Settings, load_settings, read_secret

UNITS = re.compile(
    r"_(s|ms|hours|days|bytes|records|replicas|transactions|batches|frauds)$"
    r"|rate$|port$|factor$|divergence$|confidence$|cost$"
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMING__CONFIG", str(tmp_path / "other.yaml"))
    return tmp_path / "other.yaml"


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        yield name, field.annotation


def test_every_setting_is_explained_and_in_the_file() -> None:
    written: dict[str, dict[str, Any]] = yaml.safe_load(DEFAULT_FILE.read_text())
    for name, section in sections():
        for key, field in section.model_fields.items():
            assert field.description, key
            in_file = getattr(section.model_validate(written[name]), key)
            assert key in written[name], f"{name}.{key} is missing in the file"
            assert in_file == field.default, f"{name}.{key}: the file is not the default"


def test_numbers_carry_their_unit_in_the_name() -> None:
    unitless = {"partitions", "replication_factor", "concurrency", "simulated_rows", "partition", "offset"}
    for name, section in sections():
        for key, field in section.model_fields.items():
            is_ratio = name in {"monitor", "drift"} and field.annotation is float
            if field.annotation in (int, float) and key not in unitless and not is_ratio:
                assert UNITS.search(key), key


def test_a_flag_beats_a_variable_beats_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("bridge: {group: from-file, instance_id: from-file}\nkafka: {bootstrap_servers: 'f:1'}\n")
    assert load_settings().bridge.group == "from-file"
    monkeypatch.setenv("STREAMING__BRIDGE__GROUP", "from-variable")
    assert load_settings().bridge.group == "from-variable"
    flagged = load_settings({"bridge": {"group": "from-flag", "instance_id": None}})
    assert (flagged.bridge.group, flagged.bridge.instance_id) == ("from-flag", "from-file")


def test_the_usual_kafka_variable_is_honoured(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("kafka: {bootstrap_servers: 'f:1'}\n")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "usual:1")
    assert load_settings().kafka.bootstrap_servers == "usual:1"
    monkeypatch.setenv("STREAMING__KAFKA__BOOTSTRAP_SERVERS", "own:1")
    assert load_settings().kafka.bootstrap_servers == "own:1"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("bridge: {grup: x}", "bridge.grup"),
        ("brigde: {}", "brigde"),
        ("bridge: {session_timeout_ms: 0}", "bridge.session_timeout_ms"),
        ("bridge: {transaction_deadline_s: 30}", "transaction_deadline_s"),
        ("bridge: {session_timeout_ms: 6000}", "twice bridge.revoke_timeout_s must be shorter"),
        ("service: {classify_url: 'localhost:3000'}", "service.classify_url"),
        ("topics: {input: 'a b'}", "topics.input"),
        ("topics: {input: decisions}", "differ"),
        ("topics: {input: '..'}", "topics.input"),
        ("bridge: {instance_id: '.'}", "bridge.instance_id"),
        ("kafka: {request_timeout_s: 0.4}", "kafka.request_timeout_s"),
        ("kafka: {bootstrap_servers: 'host:not-a-port'}", "'host:not-a-port' is no host:port"),
        ("kafka: {bootstrap_servers: 'host'}", "kafka.bootstrap_servers"),
        ("kafka: {bootstrap_servers: ' , '}", "at least one"),
        ("kafka: {security_protocol: SASL_SSL}", "SASL"),
        ("kafka: {security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_username: u}", "sasl_password"),
        ("bridge: [", "cannot be read"),
    ],
)
def test_mistakes_are_named(file: Path, text: str, named: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(named)) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_addresses_may_stand_as_people_write_them() -> None:
    settings = load_settings({"kafka": {"bootstrap_servers": " PLAINTEXT://a:1, [::1]:2,b:3, "}})
    assert settings.kafka.servers == ["a:1", "[::1]:2", "b:3"]


@pytest.mark.parametrize("name", ["STREAMING__BRIGDE__GROUP", "STREAMING__GROUP", "STREAMING__BRIDGE__GRUP"])
def test_unknown_variables_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError):
        load_settings()


def test_a_mistake_names_where_it_was_made(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("bridge: {poll_timeout_ms: 0}\n")
    monkeypatch.setenv("STREAMING__METRICS__PORT", "many")
    with pytest.raises(SettingsError) as caught:
        load_settings({"topics": {"input": "a b"}}, {"topics.input": "--topic"})
    for place in (
        "topics.input (flag --topic)",
        "metrics.port (variable STREAMING__METRICS__PORT)",
        f"bridge.poll_timeout_ms (file {file})",
    ):
        assert place in str(caught.value)


def test_an_empty_variable_is_not_set(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("bridge: {group: from-file}\n")
    for name in ("STREAMING__BRIDGE__GROUP", "STREAMING__SERVICE__API_KEY_FILE", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert (settings.bridge.group, settings.service.api_key_file) == ("from-file", None)


@pytest.mark.parametrize("text", ["- a list", "just text"])
def test_a_file_must_be_a_mapping(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match="no mapping"):
        load_settings()


def test_a_file_that_is_asked_for_must_exist(file: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        BridgeSettings().group = "x"  # type: ignore[misc]


def test_secrets_are_in_no_error_and_no_text(file: Path) -> None:
    file.write_text("service: {api_key: hush}\nkafka: {ssl_password: hush, sasl_password: hush}\n")
    assert "hush" not in repr(load_settings())
    file.write_text("service: {api_key: [hush]}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hush" not in str(caught.value)


def test_a_secret_comes_from_its_file_first(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(" from-file \n")
    assert read_secret(SecretStr("value"), tmp_path / "secret", "x") == "from-file"
    assert read_secret(SecretStr("value"), None, "x") == "value"
    assert read_secret(None, None, "x") is None


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff"])
def test_an_unusable_secret_file_is_a_wrong_setting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(SettingsError, match="key_file"):
        read_secret(None, tmp_path / "secret", "key_file")
