"""Typed, frozen view of ``configs/streaming.yaml``; a variable overrides the file, a flag both."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr, ValidationError
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
from streaming.settings.sections import (
    BackfillSettings,
    BridgeSettings,
    KafkaSettings,
    LogSettings,
    MetricsSettings,
    RedriveSettings,
    ReplaySettings,
    ServiceSettings,
    TopicSettings,
)

PREFIX = "STREAMING__"
DEFAULT_FILE = Path(__file__).parents[2] / "configs" / "streaming.yaml"


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
    redrive: RedriveSettings = RedriveSettings()
    backfill: BackfillSettings = BackfillSettings()
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
