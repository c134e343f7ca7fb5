"""The blocks of ``configs/streaming.yaml``: every setting with its range, its default and what it is for."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator


def refuse_dots(name: str) -> str:
    """Refuse what Kafka takes neither for a topic nor for an instance."""
    if name in {".", ".."}:
        raise ValueError("Kafka takes neither . nor .. as a name")
    return name


TopicName = Annotated[
    str, Field(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+$"), AfterValidator(refuse_dots)
]


class Section(BaseModel):
    """One block of the file; a key that it does not know stops the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """How to reach the broker."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        min_length=1,
        description="host:port of one or more brokers, separated by commas; "
        "KAFKA_BOOTSTRAP_SERVERS is honoured too.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Whether to use TLS and SASL."
    )
    ssl_cafile: Path | None = Field(
        None, description="Certificate authority that signed the brokers' certificates."
    )
    ssl_certfile: Path | None = Field(None, description="Client certificate, for mutual TLS.")
    ssl_keyfile: Path | None = Field(None, description="Key of the client certificate.")
    ssl_password: SecretStr | None = Field(
        None, description="Password of that key; better ssl_password_file."
    )
    ssl_password_file: Path | None = Field(None, description="File that holds that password.")
    ssl_check_hostname: bool = Field(True, description="Whether a broker's name must match its certificate.")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="SASL mechanism, when security_protocol asks for SASL."
    )
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password; better sasl_password_file.")
    sasl_password_file: Path | None = Field(None, description="File that holds the SASL password.")
    connect_timeout_s: float = Field(
        20.0, gt=0, le=600, description="Longest wait for the broker at the start of a command, seconds."
    )
    request_timeout_s: float = Field(
        10.0,
        gt=0.5,
        le=300,
        description="Limit of one request to the broker, seconds; more than the half second that a fetch may "
        "wait for records.",
    )
    max_decompressed_bytes: int = Field(
        33_554_432,
        ge=1_048_576,
        le=2_147_483_648,
        description="What a compressed batch of the input may decompress to, bytes; a larger one holds its "
        "partition. Reading it takes up to four times this memory.",
    )

    @property
    def servers(self) -> list[str]:
        """host:port of each broker, without a listener's name before it."""
        parts = (part.strip() for part in self.bootstrap_servers.split(","))
        return [part.partition("://")[2] or part for part in parts if part]

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers_are_addresses(cls, value: str) -> str:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        for part in parts:
            host, colon, port = (part.partition("://")[2] or part).rpartition(":")
            if not (host and colon and port.isdecimal() and 0 < int(port) <= 65_535):
                raise ValueError(f"{part!r} is no host:port")
        if not parts:
            raise ValueError("name at least one host:port")
        return value

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
    """The topics; those that a command needs and are missing are created at the start."""

    input: TopicName = Field("transactions", description="Topic with the transactions.")
    output: TopicName = Field("decisions", description="Topic for the decisions.")
    dead_letter: TopicName = Field(
        "transactions.dead-letter", description="Topic for transactions that cannot be decided."
    )
    labels: TopicName = Field("labels", description="Topic with the labels.")
    labels_dead_letter: TopicName = Field(
        "labels.dead-letter", description="Topic for labels that cannot be read."
    )
    shadow_decisions: TopicName = Field(
        "decisions.shadow",
        description="Topic with the decisions of the challenger, where one runs in shadow.",
    )
    create_missing: bool = Field(True, description="Create topics that are missing; else stop with an error.")
    partitions: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Partitions of a topic that is created; outputs get those of the input.",
    )
    replication_factor: int = Field(
        -1,
        ge=-1,
        le=32_767,
        description="Copies of each partition of a topic that is created; -1: the broker's default.",
    )
    min_insync_replicas: int | None = Field(
        None,
        ge=1,
        le=32_767,
        description="Copies that must have a record before it counts as written, in topics that are created; "
        "below replication_factor, so that one broker may fail; null: the broker's default.",
    )
    input_retention_hours: int | None = Field(
        None,
        ge=1,
        description="How long the input topic keeps transactions when it is created, hours; longer than any "
        "standstill of the bridges; null: the broker's default.",
    )
    output_retention_hours: int | None = Field(
        None,
        ge=1,
        description="How long the output topic keeps decisions when it is created, hours; null: the "
        "broker's default.",
    )
    dead_letter_retention_hours: int | None = Field(
        720,
        ge=1,
        description="How long topics of dead letters keep them when they are created, hours; they must "
        "outlive a holiday; null: the broker's default.",
    )
    max_message_bytes: int = Field(
        2_097_152,
        ge=1024,
        le=104_857_600,
        description="Largest record of the output topics when they are created, bytes; above the input's "
        "limit (1 MiB by default), so that each input fits into a dead letter with its headers.",
    )

    @model_validator(mode="after")
    def _copies_suffice(self) -> "TopicSettings":
        if 0 < self.replication_factor < (self.min_insync_replicas or 0):
            raise ValueError("topics.min_insync_replicas must not be above topics.replication_factor")
        return self

    def retention_hours(self, name: str) -> int | None:
        """Return how long the topic `name` is to keep its records; None: as the broker says."""
        return {
            self.input: self.input_retention_hours,
            self.output: self.output_retention_hours,
            self.dead_letter: self.dead_letter_retention_hours,
            self.labels_dead_letter: self.dead_letter_retention_hours,
        }.get(name)

    @model_validator(mode="after")
    def _names_differ(self) -> "TopicSettings":
        if len({self.input, self.output, self.dead_letter}) < 3:
            raise ValueError("topics.input, topics.output and topics.dead_letter must differ")
        if len({self.input, self.labels, self.labels_dead_letter}) < 3:
            raise ValueError("topics.input, topics.labels and topics.labels_dead_letter must differ")
        return self


class ServiceSettings(Section):
    """The scoring service and the patience with it."""

    classify_url: str = Field(
        "http://127.0.0.1:3000/classify",
        pattern=r"^https?://[^/\s]+",
        description="Address of POST /classify.",
    )
    api_key: SecretStr | None = Field(None, description="Key sent as X-API-Key; better api_key_file.")
    api_key_file: Path | None = Field(None, description="File that holds that key.")
    ca_file: Path | None = Field(
        None, description="Certificate authority for an https service; else the system's."
    )
    reasons: Literal["none", "alarms", "all"] = Field(
        "none",
        description="Which decision records carry `reasons`, the features that moved the score most: none of "
        "them, reviews and declines (alarms), or all, which slows the service down severalfold.",
    )
    connect_timeout_s: float = Field(2.0, gt=0, le=60, description="Limit for a connection, seconds.")
    request_timeout_s: float = Field(10.0, gt=0, le=300, description="Limit for a whole answer, seconds.")
    connection_max_age_s: float = Field(
        30.0,
        gt=0,
        description="Connections are made anew so often, seconds: replicas that are added get their share.",
    )
    backoff_initial_s: float = Field(0.1, gt=0, le=60, description="First wait before a repeat, seconds.")
    backoff_max_s: float = Field(
        5.0, gt=0, le=600, description="Longest wait before a repeat, seconds; Retry-After may ask for more."
    )
    retry_after_max_s: float = Field(
        30.0, gt=0, le=3600, description="Longest Retry-After that is honoured, seconds."
    )
    max_batch_records: int = Field(
        2000, ge=1, le=10_000, description="Largest number of transactions in one request."
    )
    max_batch_bytes: int = Field(
        4_194_304,
        ge=1024,
        le=1_073_741_824,
        description="Largest request, bytes; a single larger transaction is sent alone.",
    )
    concurrency: int = Field(
        2,
        ge=1,
        le=32,
        description="Requests in flight at once, for batches of 200 records or more (or of "
        "max_batch_records, if that is less); smaller ones go one after another, a request for each "
        "transaction.",
    )


class MetricsSettings(Section):
    """What the bridge shows over HTTP."""

    host: str = Field("127.0.0.1", min_length=1, description="Address that the metrics server binds.")
    port: int = Field(9464, ge=0, le=65_535, description="Port of the metrics server; 0: none.")
    live_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="/livez fails when the loop has not turned for this time, seconds."
    )
    progress_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="/readyz fails when records wait and none was committed for this time, seconds.",
    )


class ReplaySettings(Section):
    """Which recorded transactions are sent, and how."""

    data: str = Field(
        "simulator",
        min_length=1,
        description="CSV or parquet file, as `training` reads them, or `simulator`.",
    )
    limit: int | None = Field(None, ge=1, description="Largest number of transactions to send; null: all.")
    loop: bool = Field(False, description="Start again at the end of the file, until stopped.")
    rate: float = Field(
        1000.0,
        ge=0,
        le=10_000_000,
        description="Transactions per second; 0: as fast as the broker takes them.",
    )
    tick_ms: float = Field(10.0, gt=0, le=1000, description="Time between two sends, milliseconds.")
    simulated_rows: int = Field(
        20_000, ge=1, le=100_000_000, description="Rows to simulate for `--data simulator` without --limit."
    )
    delivery_timeout_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Replay fails when a record is not acknowledged for this time, seconds.",
    )


class RedriveSettings(Section):
    """Which dead letters are sent back."""

    reason: str | None = Field(None, description="Only letters with this error.reason; null: all.")
    dry_run: bool = Field(False, description="Only count the letters.")


class SkipSettings(Section):
    """Which record, that the service fails on, is sent to the dead letters by hand."""

    partition: int | None = Field(None, ge=0, description="Partition of the record; null: none, name one.")
    offset: int | None = Field(None, ge=0, description="Offset of the record; null: none, name one.")
    reason: str | None = Field(
        None, min_length=1, max_length=500, description="Why, for the dead letter; null: none, give one."
    )
    wait_s: float = Field(
        60.0, gt=0, le=3600, description="How long the command waits for a bridge to skip it, seconds."
    )


BOUND = "an offset, a time like 2026-01-31T12:00:00 (UTC), `earliest` or `latest`"


class BackfillSettings(Section):
    """Which transactions are decided again."""

    output_topic: TopicName | None = Field(
        None, description="Topic for the new decisions, created when missing; null: none, name one."
    )
    begin: str = Field("earliest", description=f"Start of the range: {BOUND}.")
    end: str = Field("latest", description=f"End of the range, not included: {BOUND}.")
    report: Path | None = Field(None, description="JSON file for the report; null: none.")


class LogSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity that is shown."
    )
    format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal, else JSON."
    )
    summary_s: float = Field(10.0, gt=0, le=3600, description="Time between two summary lines, seconds.")
