"""Typed view of ``configs/serving.yaml``: what the service may be told."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

ENV_PREFIX = "SERVING__"
DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "serving.yaml"
# A feature beyond this would be infinite as float32.
FLOAT32_MAX = 3.0e38


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitSettings(Section):
    """What a feature may be; stated in the OpenAPI schema and enforced as stated."""

    time_max_s: float = Field(1e7, gt=0, le=FLOAT32_MAX, description="Largest Time; the smallest is 0.")
    component_max: float = Field(
        1000.0, gt=0, le=FLOAT32_MAX, description="Largest absolute value of V1 to V28."
    )
    amount_max: float = Field(
        1e7, gt=0, le=FLOAT32_MAX, description="Largest Amount, account currency; the smallest is 0."
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


class GatewaySettings(Section):
    """How requests are gathered before the hop to the runners."""

    max_batch_rows: int = Field(4096, ge=1, description="Most rows in one hop; a longer list takes several.")
    gather_rows: int = Field(
        48, ge=1, description="Rows that leave at once; fewer leave when a turn of the loop brings no more."
    )
    max_batches_in_flight: int = Field(
        2, ge=1, description="Hops under way at once; what arrives meanwhile is gathered into the next."
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
        description="Longest an idle model waits for company; BentoML would learn a wait and keep it.",
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


class ExplainSettings(Section):
    """What ``?explain=true`` may cost."""

    reasons: int = Field(5, ge=1, le=30, description="Reasons given per transaction.")
    chunk_rows: int = Field(128, ge=1, description="Rows explained at once; scores go in between.")
    deadline_s: float = Field(30.0, gt=0, description="Longest a request may wait for reasons; then 503.")
    max_waiting_requests: int = Field(
        16, ge=1, description="Requests that may wait for reasons; beyond it 503 at once."
    )


class LogSettings(Section):
    """What is written while serving; never a value of a transaction."""

    access: bool = Field(False, description="One JSON line per request on stdout.")


class Settings(BaseSettings):
    """Everything ``configs/serving.yaml`` may hold; order of precedence: variable, file, default."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__"
    )
    _file: ClassVar[dict[str, Any]] = {}

    release: str | None = Field(None, description="Serve this release; without it, the active one.")
    port: int = Field(3000, ge=1, le=65535, description="Port of `bentoml serve` where no flag names one.")
    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104  # BentoML's own default
    limits: LimitSettings = Field(LimitSettings(), description="What a feature may be.")
    request: RequestSettings = Field(RequestSettings(), description="What a request may be.")
    gateway: GatewaySettings = Field(GatewaySettings(), description="Gathering before the hop.")
    neural_net: RunnerSettings = Field(RunnerSettings(), description="The network's runner.")
    xgboost: RunnerSettings = Field(RunnerSettings(), description="The trees' runner.")
    security: SecuritySettings = Field(SecuritySettings(), description="Who may ask.")
    log: LogSettings = Field(LogSettings(), description="What is written while serving.")
    explain: ExplainSettings = Field(ExplainSettings(), description="What ?explain=true may cost.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the file below the variables."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=cls._file)


def read_settings(path: Path) -> Settings:
    """Return the settings of the file at `path`, variables applied.

    Raises
    ------
    ValueError
        If a key is unknown or a value out of range; the message names each, without its value.
    OSError
        If the file cannot be read.
    """
    document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a mapping of settings")

    class FromFile(Settings):
        _file = document

    try:
        return FromFile()
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        )
        raise ValueError(f"{path} or a {ENV_PREFIX} variable: {faults}") from None


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Return the settings of this process; wrong ones end it with status 2 and one sentence."""
    unknown = sorted(_variables() - {"config", *Settings.model_fields})
    if unknown:
        _refuse(f"no setting is called {', '.join(unknown)} (a {ENV_PREFIX} variable)")
    try:
        return read_settings(Path(os.environ.get(f"{ENV_PREFIX}CONFIG", DEFAULT_CONFIG)))
    except (ValueError, OSError, yaml.YAMLError) as error:
        _refuse(str(error))


def _variables() -> set[str]:
    """Return the first level of every SERVING__ variable; pydantic would overlook those it does not know."""
    names = (name.upper() for name in os.environ)
    return {name[len(ENV_PREFIX) :].split("__")[0].lower() for name in names if name.startswith(ENV_PREFIX)}


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"Wrong settings: {message}\n")
    raise SystemExit(2)
