"""Typed, frozen view of ``configs/streaming.yaml``; a variable overrides the file, a flag both."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SourceError,
)

from streaming.errors import SettingsError

PREFIX = "STREAMING__"
DEFAULT_FILE = Path(__file__).parent.parent / "configs" / "streaming.yaml"

TopicName = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+$")]


class Section(BaseModel):
    """One block of the file; a key that it does not know stops the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """How to reach the broker."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        min_length=1,
        description="host:port of one or more brokers, separated by commas; "
        "KAFKA_BOOTSTRAP_SERVERS is honoured too",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="whether to use TLS and SASL"
    )
    ssl_cafile: Path | None = Field(
        None, description="certificate authority that signed the brokers' certificates"
    )
    ssl_certfile: Path | None = Field(None, description="client certificate, for mutual TLS")
    ssl_keyfile: Path | None = Field(None, description="key of the client certificate")
    ssl_password: SecretStr | None = Field(None, description="password of that key; better ssl_password_file")
    ssl_password_file: Path | None = Field(None, description="file that holds that password")
    ssl_check_hostname: bool = Field(True, description="whether a broker's name must match its certificate")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="SASL mechanism, when security_protocol asks for SASL"
    )
    sasl_username: str | None = Field(None, description="SASL user")
    sasl_password: SecretStr | None = Field(None, description="SASL password; better sasl_password_file")
    sasl_password_file: Path | None = Field(None, description="file that holds the SASL password")
    connect_timeout_s: float = Field(
        20.0, gt=0, le=600, description="how long a command waits at its start for the broker, seconds"
    )
    request_timeout_s: float = Field(
        10.0, gt=0, le=300, description="limit of one request to the broker, seconds"
    )

    @model_validator(mode="after")
    def _sasl_is_complete(self) -> "KafkaSettings":
        if not self.security_protocol.startswith("SASL"):
            return self
        if self.sasl_mechanism is None or self.sasl_username is None:
            raise ValueError("SASL needs kafka.sasl_mechanism and kafka.sasl_username")
        if self.sasl_password is None and self.sasl_password_file is None:
            raise ValueError("SASL needs kafka.sasl_password or kafka.sasl_password_file")
        return self


class TopicSettings(Section):
    """The three topics; those that are missing are created at the start."""

    input: TopicName = Field("transactions", description="topic with the transactions")
    output: TopicName = Field("decisions", description="topic for the decisions")
    dead_letter: TopicName = Field(
        "transactions.dead-letter", description="topic for transactions that cannot be decided"
    )
    create_missing: bool = Field(True, description="create topics that are missing; else stop with an error")
    partitions: int = Field(
        4,
        ge=1,
        le=10_000,
        description="partitions of a topic that is created; outputs get those of the input",
    )
    replication_factor: int = Field(
        -1,
        ge=-1,
        le=32_767,
        description="copies of each partition of a topic that is created; -1: the broker's default",
    )
    max_message_bytes: int = Field(
        2_097_152,
        ge=1024,
        le=104_857_600,
        description="largest record of the output topics when they are created, bytes; above the input's "
        "limit (1 MiB by default), so that each input fits into a dead letter with its headers",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> "TopicSettings":
        if len({self.input, self.output, self.dead_letter}) < 3:
            raise ValueError("topics.input, topics.output and topics.dead_letter must differ")
        return self


class ServiceSettings(Section):
    """The scoring service and the patience with it."""

    classify_url: str = Field(
        "http://127.0.0.1:3000/classify",
        pattern=r"^https?://[^/\s]+",
        description="address of POST /classify",
    )
    api_key: SecretStr | None = Field(None, description="key sent as X-API-Key; better api_key_file")
    api_key_file: Path | None = Field(None, description="file that holds that key")
    ca_file: Path | None = Field(
        None, description="certificate authority for an https service; else the system's"
    )
    connect_timeout_s: float = Field(2.0, gt=0, le=60, description="limit for a connection, seconds")
    request_timeout_s: float = Field(10.0, gt=0, le=300, description="limit for a whole answer, seconds")
    backoff_initial_s: float = Field(0.1, gt=0, le=60, description="first wait before a repeat, seconds")
    backoff_max_s: float = Field(
        5.0, gt=0, le=600, description="longest wait before a repeat, seconds; Retry-After may ask for more"
    )
    retry_after_max_s: float = Field(
        30.0, gt=0, le=3600, description="longest Retry-After that is honoured, seconds"
    )
    max_batch_records: int = Field(2000, ge=1, le=10_000, description="most transactions in one request")
    max_batch_bytes: int = Field(
        4_194_304,
        ge=1024,
        le=1_073_741_824,
        description="most bytes in one request; a larger single one goes alone",
    )
    concurrency: int = Field(2, ge=1, le=32, description="requests under way at once")


class BridgeSettings(Section):
    """The consumer group, the transaction and the life cycle."""

    group: str = Field("fraud-bridge", min_length=1, max_length=249, description="consumer group")
    instance_id: str = Field(
        "bridge-0",
        min_length=1,
        max_length=200,
        pattern=r"^[a-zA-Z0-9._-]+$",
        description="identity of this bridge in its group: group instance and transactional id; "
        "a restart under the same id takes over at once, two processes must never share one",
    )
    max_in_flight_batches: int = Field(
        8, ge=1, le=100, description="batches between fetched and committed, at most"
    )
    max_in_flight_bytes: int = Field(
        33_554_432,
        ge=1024,
        le=4_294_967_296,
        description="bytes of transactions between fetched and committed, at most",
    )
    poll_timeout_ms: int = Field(
        100, ge=1, le=10_000, description="longest wait for new records, milliseconds"
    )
    fetch_interval_ms: float = Field(
        16.0,
        ge=0,
        le=1000,
        description="shortest time between two fetches, milliseconds: what comes meanwhile shares a request "
        "and a transaction",
    )
    session_timeout_ms: int = Field(
        10_000,
        ge=1000,
        le=1_800_000,
        description="after this silence the group gives a bridge's partitions to others, milliseconds",
    )
    max_poll_interval_ms: int = Field(
        120_000,
        ge=10_000,
        le=3_600_000,
        description="longest time a rebalance waits for a bridge, milliseconds",
    )
    transaction_timeout_ms: int = Field(
        20_000,
        ge=1000,
        le=900_000,
        description="the broker aborts a transaction that is open longer, milliseconds; "
        "other bridges wait that long for the partitions of one that was killed",
    )
    transaction_deadline_s: float = Field(
        10.0,
        gt=0,
        le=600,
        description="own limit round the sends and the commit of one transaction, seconds; "
        "after it the producer is replaced",
    )
    revoke_timeout_s: float = Field(
        3.0,
        ge=0,
        le=60,
        description="how long a rebalance waits for work in flight before it is dropped, seconds; "
        "less than half of session_timeout_ms",
    )
    stop_timeout_s: float = Field(
        5.0, ge=0, le=8, description="how long SIGTERM waits for work in flight before it is dropped, seconds"
    )
    leave_on_stop: bool = Field(
        True,
        description="leave the group at the end, so that others get the partitions at once; "
        "false: keep them for session_timeout_ms, for a quick restart without a rebalance",
    )
    membership_check_s: float = Field(
        3.0,
        gt=0,
        le=600,
        description="how often to make sure that no other process took the instance id, seconds",
    )

    @model_validator(mode="after")
    def _times_fit(self) -> "BridgeSettings":
        if self.transaction_deadline_s * 1000 >= self.transaction_timeout_ms:
            raise ValueError("bridge.transaction_deadline_s must be shorter than transaction_timeout_ms")
        if 2 * self.revoke_timeout_s * 1000 >= self.session_timeout_ms:
            message = "twice bridge.revoke_timeout_s must be shorter than session_timeout_ms, or the group "
            raise ValueError(message + "gives the bridge up while it finishes, then drops, what is in flight")
        return self


class MetricsSettings(Section):
    """What the bridge shows over HTTP."""

    host: str = Field("127.0.0.1", min_length=1, description="address that the metrics server binds")
    port: int = Field(9464, ge=0, le=65_535, description="its port; 0: no metrics server")
    live_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="/livez fails when the loop has not turned for so long, seconds"
    )
    progress_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="/readyz fails when records wait and none was committed for so long, seconds",
    )


class ReplaySettings(Section):
    """How recorded transactions are sent."""

    rate: float = Field(
        1000.0,
        ge=0,
        le=10_000_000,
        description="transactions per second; 0: as fast as the broker takes them",
    )
    tick_ms: float = Field(
        10.0, gt=0, le=1000, description="transactions are sent in ticks of so many milliseconds"
    )
    simulated_rows: int = Field(
        20_000, ge=1, le=100_000_000, description="rows to simulate for `--data simulator` without --limit"
    )
    delivery_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="replay fails when a record is not acknowledged for so long, seconds"
    )


class LogSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity that is shown"
    )
    format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON")
    summary_s: float = Field(10.0, gt=0, le=3600, description="time between two summary lines, seconds")


class Settings(BaseSettings):
    """All settings of the package.

    Build it with `load_settings`, which turns mistakes into one sentence.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", case_sensitive=False
    )

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    service: ServiceSettings = ServiceSettings()
    bridge: BridgeSettings = BridgeSettings()
    metrics: MetricsSettings = MetricsSettings()
    replay: ReplaySettings = ReplaySettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, variables, the usual Kafka variable, the file."""
        usual = _UsualVariables(settings_cls)
        return init_settings, env_settings, usual, YamlConfigSettingsSource(settings_cls, _settings_file())


class _UsualVariables(PydanticBaseSettingsSource):
    """``KAFKA_BOOTSTRAP_SERVERS``, which other Kafka tools read too."""

    def get_field_value(self, field: object, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        return {"kafka": {"bootstrap_servers": servers}} if servers else {}


def _settings_file() -> Path:
    chosen = os.environ.get(f"{PREFIX}CONFIG")
    return Path(chosen) if chosen else DEFAULT_FILE


def _refuse_unknown_variables() -> None:
    known = {*Settings.model_fields, "config"}
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name[len(PREFIX) :].split("__")[0].lower() not in known:
            raise SettingsError(f"{name} is no setting; `python -m streaming --help` tells which there are.")


def load_settings(flags: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Read flags, variables and the file.

    Parameters
    ----------
    flags : mapping, optional
        Section to setting to value, as given on the command line; `None` values are left out.

    Returns
    -------
    Settings

    Raises
    ------
    SettingsError
        For an unknown key, a value out of range or a file that cannot be read.
    """
    given = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in (flags or {}).items()
    }
    given = {section: values for section, values in given.items() if values}
    _refuse_unknown_variables()
    if not _settings_file().is_file() and os.environ.get(f"{PREFIX}CONFIG"):
        raise SettingsError(f"{PREFIX}CONFIG names {_settings_file()}, which does not exist.")
    try:
        return Settings(**given)  # type: ignore[arg-type]  # sections arrive as mappings
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    except (SourceError, OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise SettingsError(f"The settings cannot be read: {reason}") from error


def _explain(error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in fault["loc"]) or "settings"
        text = (
            "is no setting"
            if fault["type"] == "extra_forbidden"
            else fault["msg"].removeprefix("Value error, ")
        )
        faults.append(f"{place}: {text}")
    return f"Wrong settings ({_settings_file().name}, {PREFIX}… or flags): " + "; ".join(faults)


def read_secret(value: SecretStr | None, file: Path | None, name: str) -> str | None:
    """Return a secret from its file, else from its value, else `None`.

    Raises
    ------
    SettingsError
        If the file cannot be read or is empty.
    """
    if file is None:
        return value.get_secret_value() if value else None
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name} cannot be read: {error}") from error
    if not secret:
        raise SettingsError(f"{name} is empty: {file}")
    return secret
