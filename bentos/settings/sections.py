"""The blocks of ``configs/serving.yaml``: every setting with its range, its default and what it is for."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

# A feature beyond this would be infinite as float32.
FLOAT32_MAX = 3.0e38


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitSettings(Section):
    """What a feature may be; stated in the OpenAPI schema and enforced as stated."""

    time_max_s: float = Field(
        1e10, gt=0, le=FLOAT32_MAX, description="Largest Time, s; the smallest is 0. 1e10 s are 317 years."
    )
    component_max: float = Field(
        1000.0, gt=0, le=FLOAT32_MAX, description="Largest absolute value of V1 to V28."
    )
    amount_max: float = Field(
        1e12, gt=0, le=FLOAT32_MAX, description="Largest Amount, account currency; the smallest is 0."
    )


class RequestSettings(Section):
    """What a request may be."""

    max_transactions: int = Field(10_000, ge=1, description="Longest list; a longer one gets 413.")
    max_body_bytes: int = Field(
        16 * 2**20, ge=1024, description="Largest body; refused with 413 before it is parsed."
    )
    max_buffered_bytes: int = Field(
        512 * 2**20, ge=1024, description="Bodies being received or parsed, together; beyond it 503."
    )
    body_timeout_s: float = Field(
        10.0, gt=0, description="Time a body may take to arrive; then 408 and the connection closes."
    )


class ConnectionSettings(Section):
    """What a connection to the public port may cost before it has sent a request."""

    max_connections: int = Field(
        1000,
        ge=1,
        description="Connections of one gateway process; beyond it the one that is idle longest is closed, "
        "or the new one gets 503.",
    )
    max_header_bytes: int = Field(64 * 1024, ge=1024, description="Largest head of a request; then 431.")
    header_timeout_s: float = Field(
        10.0, gt=0, description="Time a head may take to arrive, s; then 408. Idle connections close as well."
    )
    max_age_s: float = Field(
        60.0,
        gt=0,
        description="Age at which a connection ends with its next answer (`Connection: close`), s: callers "
        "that keep theirs reach replicas that were added.",
    )


class GatewaySettings(Section):
    """How requests are gathered before the call to the runners."""

    max_batch_rows: int = Field(
        4096, ge=1, description="Most rows in one call to the runners; a longer list takes several."
    )
    gather_rows: int = Field(
        48,
        ge=1,
        description="Rows that are sent at once; fewer when a turn of the event loop brings no more.",
    )
    max_batches_in_flight: int = Field(
        2,
        ge=1,
        description="Calls to the runners under way at once; requests that arrive meanwhile share the next.",
    )
    max_queued_rows: int = Field(
        50_000, ge=1, description="Rows that may wait; a request that would exceed it gets 503 at once."
    )
    deadline_ms: float = Field(
        2000.0, gt=0, description="Longest a request may wait for both runners; then 503."
    )
    retry_after_s: int = Field(1, ge=1, description="Retry-After of every 503.")
    workers: int = Field(1, ge=1, description="Gateway processes; one is best on two cores.")


class RunnerSettings(Section):
    """One runner: its adaptive batching and its threads."""

    max_batch_rows: int = Field(8192, ge=2, description="Most rows in one adaptive batch.")
    max_latency_ms: int = Field(
        1000, ge=1, description="Rows that would wait longer get 503 from the runner's adaptive batching."
    )
    max_wait_ms: float = Field(
        0.0,
        ge=0,
        description="Longest an idle model waits for more rows; BentoML would learn a wait and keep it.",
    )
    threads: int = Field(1, ge=1, description="Threads the model computes with.")
    workers: int = Field(1, ge=1, description="Processes of this runner.")


class TlsSettings(Section):
    """TLS of the public port; plain HTTP where no certificate is given."""

    certificate_file: Path | None = Field(None, description="Certificate chain, PEM.")
    key_file: Path | None = Field(None, description="Its private key, PEM.")
    key_password: SecretStr | None = Field(None, description="Password of the key; better key_password_file.")
    key_password_file: Path | None = Field(None, description="File that holds it.")
    client_ca_file: Path | None = Field(
        None, description="CA, PEM; with it every client must present a certificate it signed."
    )

    @model_validator(mode="after")
    def _certificate_and_key_come_together(self) -> TlsSettings:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file are given together or not at all")
        return self


class SecuritySettings(Section):
    """Who may ask."""

    api_keys: tuple[SecretStr, ...] = Field(
        (), description="Keys that open /classify and /info; several for rotation; none: open to all."
    )
    api_keys_file: Path | None = Field(None, description="File with one more key per line.")
    open_health: bool = Field(True, description="/healthz, /livez and /readyz answer without a key.")
    open_metrics: bool = Field(True, description="/metrics answers without a key.")
    open_docs: bool = Field(True, description="The OpenAPI page and /docs.json answer without a key.")
    tls: TlsSettings = Field(TlsSettings(), description="TLS of the public port.")

    @field_validator("api_keys")
    @classmethod
    def _keys_are_not_blank(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(key.get_secret_value().strip() for key in keys):
            raise ValueError("a key is blank: it would open the service to all")
        return keys


class ExplainSettings(Section):
    """What ``?explain`` may cost."""

    reasons: int = Field(5, ge=1, le=30, description="Reasons given per transaction.")
    chunk_rows: int = Field(128, ge=1, description="Rows explained at once; scores go in between.")
    deadline_s: float = Field(30.0, gt=0, description="Longest a request may wait for reasons; then 503.")
    max_waiting_requests: int = Field(
        16, ge=1, description="Requests that may wait for reasons; beyond it 503 at once."
    )


class LogSettings(Section):
    """What is written while serving; never a value of a transaction."""

    access: bool = Field(False, description="One JSON line per decided or refused request on stdout.")
