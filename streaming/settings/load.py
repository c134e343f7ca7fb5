"""Loads ``configs/streaming.yaml``: a flag overrides a variable, and a variable overrides the file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import (
    SettingsError as SourceError,
)

from streaming.errors import SettingsError
from streaming.settings.bridge import BridgeSettings
from streaming.settings.drift import DriftSettings
from streaming.settings.labels import ExportSettings, LabelSettings
from streaming.settings.monitor import MonitorSettings
from streaming.settings.sections import (
    BackfillSettings,
    KafkaSettings,
    LogSettings,
    MetricsSettings,
    RedriveSettings,
    ReplaySettings,
    ServiceSettings,
    SkipSettings,
    TopicSettings,
)

PREFIX = "STREAMING__"
DEFAULT_FILE = Path(__file__).parents[2] / "configs" / "streaming.yaml"

Values = dict[str, Any]
"""Sections, each with its settings, as a source gives them."""


class Settings(BaseSettings):
    """All settings of the package.

    Build it with `load_settings`, which turns mistakes into one sentence.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        case_sensitive=False,
    )

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    service: ServiceSettings = ServiceSettings()
    bridge: BridgeSettings = BridgeSettings()
    metrics: MetricsSettings = MetricsSettings()
    replay: ReplaySettings = ReplaySettings()
    label: LabelSettings = LabelSettings()
    export: ExportSettings = ExportSettings()
    drift: DriftSettings = DriftSettings()
    redrive: RedriveSettings = RedriveSettings()
    backfill: BackfillSettings = BackfillSettings()
    skip: SkipSettings = SkipSettings()
    monitor: MonitorSettings = MonitorSettings()
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
        """Take what `load_settings` has merged, and nothing else: it knows where each value came from."""
        return (init_settings,)


def load_settings(
    flags: Mapping[str, Mapping[str, Any]] | None = None, flag_names: Mapping[str, str] | None = None
) -> Settings:
    """Read flags, variables and the file.

    Parameters
    ----------
    flags : mapping, optional
        Section to setting to value, as given on the command line; `None` values are left out.
    flag_names : mapping, optional
        Setting, such as ``"topics.input"``, to the flag that sets it, for messages.

    Returns
    -------
    Settings

    Raises
    ------
    SettingsError
        For an unknown key, a value out of range or a file that cannot be read.
    """
    chosen = os.environ.get(f"{PREFIX}CONFIG")
    file = Path(chosen) if chosen else DEFAULT_FILE
    usual = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    sources: list[tuple[str, Values]] = [
        ("flag", _given(flags or {})),
        (f"variable {PREFIX}", _read_variables()),
        ("variable KAFKA_BOOTSTRAP_SERVERS", {"kafka": {"bootstrap_servers": usual}} if usual else {}),
        (f"file {file}", _read_file(file)),
    ]
    merged: Values = {}
    for _, values in reversed(sources):
        _merge(merged, values)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise SettingsError(_explain(error, sources, flag_names or {})) from error


def _given(flags: Mapping[str, Mapping[str, Any]]) -> Values:
    given = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in flags.items()
    }
    return {section: values for section, values in given.items() if values}


def _read_variables() -> Values:
    known = {*Settings.model_fields, "config"}
    for name, value in os.environ.items():
        parts = name.removeprefix(PREFIX).split("__")
        if value and name.upper().startswith(PREFIX) and parts[0].lower() not in known:
            raise SettingsError(f"Wrong settings: {name} (variable {name}): is no setting.")
    try:
        return EnvSettingsSource(Settings)()
    except SourceError as error:
        # A section that is given as a whole is JSON.
        raise SettingsError(f"Wrong settings (variable {PREFIX}…): {error}.".replace("\n", " ")) from error


def _read_file(file: Path) -> Values:
    if not file.is_file():
        if os.environ.get(f"{PREFIX}CONFIG"):
            raise SettingsError(f"Wrong settings: {PREFIX}CONFIG names {file}, which does not exist.")
        return {}
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise SettingsError(f"Wrong settings: {file} cannot be read as YAML: {reason}") from error
    if not isinstance(document, dict | None):
        raise SettingsError(f"Wrong settings: {file} is no mapping of sections.")
    # A section with nothing but comments in it is None.
    return {section: values for section, values in (document or {}).items() if values is not None}


def _merge(into: Values, values: Values) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _explain(error: ValidationError, sources: list[tuple[str, Values]], flag_names: Mapping[str, str]) -> str:
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in fault["loc"]]
        text = fault["msg"].removeprefix("Value error, ")
        text = "is no setting" if fault["type"] == "extra_forbidden" else text
        faults.append(f"{'.'.join(path) or 'settings'} ({_source_of(path, sources, flag_names)}): {text}")
    return f"Wrong settings: {'; '.join(faults)}. {DEFAULT_FILE.name} explains every setting."


def _source_of(path: list[str], sources: list[tuple[str, Values]], flag_names: Mapping[str, str]) -> str:
    for name, values in sources:
        node: Any = values
        for key in path[:2]:
            node = node.get(key) if isinstance(node, dict) else None
        if node is None:
            continue
        if name == "flag":
            return f"flag {flag_names.get('.'.join(path[:2]), '')}".strip()
        return name + "__".join(path).upper() if name.endswith(PREFIX) else name
    return "default"


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
