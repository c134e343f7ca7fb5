"""Reads the settings: a flag beats a variable, a variable the file, the file the default."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as VariableError
from typing_extensions import override

from bentos.errors import SettingsError
from bentos.settings.sections import (
    ConnectionSettings,
    ExplainSettings,
    GatewaySettings,
    LimitSettings,
    LogSettings,
    RequestSettings,
    RunnerSettings,
    SecuritySettings,
)

PREFIX = "SERVING__"
DEFAULT_FILE = Path(__file__).parents[2] / "configs" / "serving.yaml"


class Settings(BaseSettings):
    """Everything ``configs/serving.yaml`` may hold; `load_settings` makes it."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    release: str | None = Field(
        None, description="Serve this release, or `challenger`; without it, the active one."
    )
    port: int = Field(3000, ge=1, le=65535, description="Port of `bentoml serve` where no flag names one.")
    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104  # BentoML's own default
    limits: LimitSettings = Field(LimitSettings(), description="What a feature may be.")
    request: RequestSettings = Field(RequestSettings(), description="What a request may be.")
    connections: ConnectionSettings = Field(
        ConnectionSettings(), description="What a connection may cost before it has sent a request."
    )
    gateway: GatewaySettings = Field(GatewaySettings(), description="How requests are gathered.")
    neural_net: RunnerSettings = Field(RunnerSettings(), description="The network's runner.")
    xgboost: RunnerSettings = Field(RunnerSettings(), description="The trees' runner.")
    security: SecuritySettings = Field(SecuritySettings(), description="Who may ask.")
    log: LogSettings = Field(LogSettings(), description="What is written while serving.")
    explain: ExplainSettings = Field(ExplainSettings(), description="What ?explain may cost.")

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the constructor only; `load_settings` merges the sources."""
        return (init_settings,)


class _Source(NamedTuple):
    kind: str
    values: Mapping[str, Any]


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Read flags, variables and the file.

    Parameters
    ----------
    flags : mapping, optional
        Setting to value, sections nested; the highest in rank.

    Raises
    ------
    SettingsError
        For an unknown key, a value out of range, or a file that cannot be read; the message names each key
        and its source, and no value.
    """
    file = Path(os.environ.get(f"{PREFIX}CONFIG") or DEFAULT_FILE)
    _refuse_unknown_variables()
    sources = (
        _Source("flag", flags or {}),
        _Source("variable", _read_variables()),
        _Source(f"file {file}", _read_file(file)),
    )
    values: dict[str, Any] = {}
    for source in reversed(sources):
        values = _merge(values, source.values)
    try:
        return Settings(**values)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        described = "; ".join(
            f"{'.'.join(map(str, fault['loc']))} ({_source_of(fault['loc'], sources)}): {_what(fault)}"
            for fault in faults
        )
        raise SettingsError(f"{described}. {DEFAULT_FILE.name} explains every setting.") from None


@lru_cache(maxsize=1)
def process_settings() -> Settings:
    """Return the settings of this process; wrong ones end it with status 2 and one sentence."""
    try:
        return load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None


def _refuse_unknown_variables() -> None:
    """Refuse what pydantic overlooks: it looks only for the variables of the first level that it knows."""
    known = {"config", *Settings.model_fields}
    for name in os.environ:
        keys = name.upper().removeprefix(PREFIX).lower().split("__")
        if name.upper().startswith(PREFIX) and keys[0] not in known:
            raise SettingsError(f"{'.'.join(keys)} (variable {name}): is no setting.")


def _read_variables() -> dict[str, Any]:
    try:
        return EnvSettingsSource(Settings)()
    except VariableError as error:
        section = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "")
        names = ", ".join(_variables_below((section,)))
        raise SettingsError(f"{section} (variable {names}): a list or a section must be JSON.") from None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise SettingsError(f"file {file}: {reason}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1} " if mark else ""
        raise SettingsError(f"file {file}: {place}is not YAML.") from None
    if document is not None and not isinstance(document, dict):
        raise SettingsError(f"file {file}: must hold settings by name.")
    return document or {}


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return merged


def _source_of(place: tuple[int | str, ...], sources: Iterable[_Source]) -> str:
    """Return where the value at `place` comes from, in words."""
    for source in sources:
        if _holds(source.values, place):
            names = ", ".join(_variables_below(place))
            return f"variable {names}" if source.kind == "variable" else source.kind
    return "default"


def _holds(values: Any, place: tuple[int | str, ...]) -> bool:  # noqa: ANN401  # whatever a file may hold
    """Say whether `values` hold `place`, or the list or text that it lies in."""
    for key in place:
        if not isinstance(values, Mapping):
            return True
        if key not in values:
            return False
        values = values[key]
    return True


def _variables_below(place: tuple[int | str, ...]) -> list[str]:
    """Return the variables that are set for `place`: those of its settings, else of the section it is in."""
    for length in range(len(place), 0, -1):
        start = PREFIX + "__".join(str(key).upper() for key in place[:length])
        names = [
            name for name in os.environ if name.upper() == start or name.upper().startswith(f"{start}__")
        ]
        if names:
            return sorted(names)
    return []


def _what(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "is no setting"
    return str(fault["msg"]).removeprefix("Value error, ")
