"""Settings from flags, variables and ``configs/training.yaml``, in that order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableVariableError
from typing_extensions import override

from training.errors import SettingsError
from training.settings.sections import (
    DecisionSettings,
    EvaluationSettings,
    FetchSettings,
    GateSettings,
    LimitSettings,
    NetworkSettings,
    ScoreSettings,
    Section,
    SimulateSettings,
    SplitSettings,
    StoreSettings,
    XGBoostSettings,
)

ENV_PREFIX = "TRAINING__"
DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "training.yaml"

# Where values come from, in words, and the values by name; the first source that has a key decides.
Sources = Sequence[tuple[str, Mapping[str, Any]]]


class Settings(BaseSettings):
    """All settings of ``training``."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    data: Path | None = Field(
        None, description="CSV or parquet file; none: data/creditcard.csv, the public copy, or the simulator."
    )
    genuine_weight: float = Field(
        1.0,
        gt=0,
        description=(
            "Transactions of the stream a genuine row stands for, where the file has no sample_weight."
        ),
    )
    known_samples: dict[str, float] = Field(
        {},
        description=(
            "Genuine weight of files that are known samples of a larger set, by the SHA-256 of the file."
        ),
    )
    seed: int = Field(7, ge=0, lt=2**31, description="Seed of sampling, first weights and bootstrap.")
    protocol: Literal["random", "temporal"] = Field(
        "random",
        description=(
            "How rows are split: at random within each class, or by time (train on the past, test on "
            "the end)."
        ),
    )
    threads: int = Field(2, ge=1, le=1024, description="CPU threads of PyTorch and XGBoost.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the network trains; auto takes a GPU when there is one."
    )
    tracking_uri: str = Field(
        "sqlite:///mlflow.db",
        min_length=1,
        description="MLflow tracking and registry address; MLFLOW_TRACKING_URI overrides the file.",
    )
    refit: bool = Field(
        True,
        description=(
            "Whether both models are fitted again on training and validation rows, once all is chosen."
        ),
    )
    refit_newest: bool = Field(
        False,
        description=(
            "Whether both models are fitted once more, on the test part too, after the gate's figures are "
            "taken: for a stream that changes, the newest rows are worth more than figures of exactly what "
            "is stored. Such a release cannot be judged again."
        ),
    )
    held_out: Path | None = Field(
        None,
        description=(
            "Parquet file that the test part is written to as well, in order of Time; none: not written."
        ),
    )
    if_changed: bool = Field(
        False, description="Whether `train` only imports when the champion has the same data and settings."
    )
    if_none: bool = Field(False, description="Whether `train` only imports when there is a champion already.")
    challenge: bool = Field(False, description="Register the release as challenger and promote nothing.")
    split: SplitSettings = Field(SplitSettings(), description="How the rows are divided.")
    limits: LimitSettings = Field(LimitSettings(), description="What a feature may be.")
    network: NetworkSettings = Field(NetworkSettings(), description="The network and its training loop.")
    xgboost: XGBoostSettings = Field(XGBoostSettings(), description="The gradient-boosted trees.")
    decision: DecisionSettings = Field(DecisionSettings(), description="What errors cost.")
    evaluation: EvaluationSettings = Field(
        EvaluationSettings(), description="How the test part is summarised."
    )
    gate: GateSettings = Field(GateSettings(), description="What a challenger must show.")
    store: StoreSettings = Field(StoreSettings(), description="The model store that services load from.")
    score: ScoreSettings = Field(ScoreSettings(), description="What batch scoring reads and writes.")
    fetch: FetchSettings = Field(
        FetchSettings(), description="How long the public copy of the data is waited for."
    )
    simulate: SimulateSettings = Field(SimulateSettings(), description="Which transactions are invented.")

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
        """Take what is given and nothing else: ``load_settings`` merges the sources."""
        return (init_settings,)


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings: flag, variable, file, default, in that order.

    Raises
    ------
    SettingsError
        If the file is missing or not YAML, a key or variable is unknown, or a value is out of range.
    """
    path = Path(os.environ.get(f"{ENV_PREFIX}CONFIG") or DEFAULT_CONFIG)
    _refuse_unknown_variables()
    usual = os.environ.get("MLFLOW_TRACKING_URI")
    sources: Sources = (
        ("flag", flags or {}),
        ("variable", _read_variables()),
        ("MLFLOW_TRACKING_URI", {"tracking_uri": usual} if usual else {}),
        (f"file {path}", _read_yaml(path)),
    )
    values: dict[str, Any] = {}
    for _, given in reversed(sources):
        values = _merge(values, given)
    try:
        return Settings(**values)
    except ValidationError as error:
        problems = "; ".join(
            _explain(item["loc"], item["type"], item["msg"], sources) for item in error.errors()
        )
        raise SettingsError(
            f"Wrong settings: {problems}. {DEFAULT_CONFIG.name} explains every setting."
        ) from None


def _read_variables() -> dict[str, Any]:
    try:
        return EnvSettingsSource(Settings)()
    except UnreadableVariableError as error:
        raise SettingsError(
            f"Wrong settings: a {ENV_PREFIX} variable holds no JSON where a list or mapping belongs: {error}"
        ) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: cannot be read as settings: {str(error).splitlines()[0]}") from error
    if values is not None and not isinstance(values, dict):
        raise SettingsError(f"{path}: must hold settings by name")
    return values or {}


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both mappings as one; where both have a value, that of `above`."""
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(known, value) if both else value  # type: ignore[arg-type]  # checked above
    return merged


def _refuse_unknown_variables() -> None:
    for variable in os.environ:
        name = variable.upper()
        if name.startswith(ENV_PREFIX) and not _is_known(name.removeprefix(ENV_PREFIX).lower().split("__")):
            raise SettingsError(f"{variable} is not a setting; {DEFAULT_CONFIG.name} explains every setting")


def _is_known(keys: Sequence[str]) -> bool:
    if keys == ["config"]:
        return True
    model: type[BaseSettings | Section] = Settings
    for i, key in enumerate(keys):
        if key not in model.model_fields:
            return False
        kind = model.model_fields[key].annotation
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            # Beneath a mapping the keys are the user's.
            return i == len(keys) - 1 or key == "known_samples"
        model = kind
    return True


def _explain(keys: tuple[int | str, ...], kind: str, message: str, sources: Sources) -> str:
    """Return what is wrong with a key and where it was given; the value stays out, it may be a secret."""
    path = [str(key) for key in keys]
    source = next((name for name, values in sources if _holds(values, path)), "default")
    if source == "flag":
        source = f"flag --{path[-1].replace('_', '-')}"
    elif source == "variable":
        source = f"variable {ENV_PREFIX}{'__'.join(path).upper()}"
    return f"{'.'.join(path)} ({source}): {'is no setting' if kind == 'extra_forbidden' else message}"


def _holds(values: Any, path: Sequence[str]) -> bool:  # noqa: ANN401 - whatever YAML holds
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return not isinstance(values, Mapping)  # within a list or text that was given whole
        values = values[key]
    return True
