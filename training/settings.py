"""Typed view of ``configs/training.yaml``: what every command of ``training`` may be told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from training.errors import SettingsError, UsageError

ENV_PREFIX = "TRAINING__"
DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "training.yaml"

Share = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys; the text under a field explains it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )


class SplitSettings(Section):
    """How the rows are divided; what remains is the training part."""

    seed: int = Field(7, ge=0, lt=2**31)
    """Seed of a random split; its own, so that retraining is judged on the same rows."""
    validation_share: float = Field(0.2, gt=0, lt=0.5)
    """Share of rows for early stopping, calibration and thresholds."""
    test_share: float = Field(0.2, gt=0, lt=0.5)
    """Share of rows that no choice ever sees."""


class NetworkSettings(Section):
    """The network and its training loop."""

    hidden: tuple[PositiveInt, ...] = Field((512, 256, 128, 64), min_length=1)
    """Units of each hidden layer, input side first."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of units silenced in each hidden layer while training."""
    epochs: int = Field(30, ge=1, le=10_000)
    """Most passes over the training part."""
    batch_rows: int = Field(512, ge=2)
    """Rows in a gradient step."""
    learning_rate: float = Field(2e-3, gt=0, le=1)
    """Adam's first step size."""
    weight_decay: float = Field(0.0, ge=0)
    """Adam's L2 penalty on the weights."""
    mixup: float = Field(0.4, ge=0, le=10)
    """Rows are mixed in pairs by a share from Beta(mixup, mixup) (Zhang et al. 2018, eq. 1); 0 mixes none."""
    averaging: float = Field(0.99, ge=0, lt=1)
    """Share that a step leaves of the running mean of weights, which is what is stored; 0: the last ones."""
    positive_weight: float = Field(2.0, gt=0)
    """How much a fraud counts in the loss, in genuine rows."""
    genuine_per_fraud: float = Field(30.0, ge=0)
    """Genuine rows kept per fraud in the training part; 0 keeps all."""
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    """Multiplier of the step size when validation stalls."""
    plateau_patience_epochs: int = Field(2, ge=0)
    """Stalled epochs before the step size shrinks."""
    stopping_patience_epochs: int = Field(8, ge=1)
    """Stalled epochs before training ends."""
    monitor_rows: int = Field(20_000, ge=1)
    """Most genuine validation rows looked at after each epoch."""
    members: int = Field(1, ge=1, le=32)
    """Networks with different first weights whose log-odds are averaged."""


class XGBoostSettings(Section):
    """The gradient-boosted trees."""

    trees: int = Field(300, ge=1, le=100_000)
    """Most trees, those side by side included."""
    parallel_trees: int = Field(2, ge=1, le=64)
    """Trees in a boosting round, each on rows and features of its own: a round is then a small forest."""
    max_depth: int = Field(6, ge=1, le=20)
    """Most splits from root to leaf."""
    learning_rate: float = Field(0.2, gt=0, le=1)
    """Shrinkage of each tree."""
    scale_pos_weight: float = Field(10.0, gt=0)
    """How much a fraud counts, in genuine rows."""
    subsample: float = Field(0.8, gt=0, le=1)
    """Share of rows each tree sees."""
    columns_per_node: float = Field(0.3, gt=0, le=1)
    """Share of features each split may choose from."""
    bins: int = Field(1024, ge=2, le=65_536)
    """Most values a feature is reduced to; fine, since exact Amounts tell."""
    min_child_weight: float = Field(1.0, ge=0)
    """Least hessian weight of a leaf."""
    regularisation_l2: float = Field(1.0, ge=0)
    """L2 shrinkage of leaf values."""
    stopping_patience_trees: int = Field(300, ge=1)
    """Trees without a better validation AUC before boosting ends and is cut back to its best tree.

    As many as there are trees never cuts. On the ULB subset a cut costs: AP .847 without, .785 with 50,
    measured at a learning rate of .3 with one tree a round. The
    AUC of some 70 validation frauds peaks by chance after a few dozen trees, while AP still rises.
    """
    genuine_per_fraud: float = Field(100.0, ge=0)
    """Genuine rows kept per fraud in the training part; 0 keeps all."""


class DecisionSettings(Section):
    """What errors cost; decides the thresholds."""

    review_cost: float = Field(1.0, gt=0)
    """Cost of one alarm, in the currency of Amount; a missed fraud costs its Amount."""
    min_precision: float = Field(0.55, ge=0, lt=1)
    """Least share of frauds among the alarms on validation rows; 0 leaves the choice to the costs alone."""
    cost_slack: float = Field(0.05, ge=0, lt=1)
    """Recall first: share of the amount at risk that may be spent beyond the cheapest thresholds allowed."""


class EvaluationSettings(Section):
    """How the test part is summarised."""

    resamples: int = Field(400, ge=20, le=100_000)
    """Bootstrap resamples behind every interval."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Coverage of the intervals."""
    alarm_rates: tuple[Share, ...] = (0.0005, 0.001, 0.002, 0.005)
    """Shares of transactions alarmed at which recall is stated."""
    precision_at_k: tuple[PositiveInt, ...] = (50, 100)
    """Numbers of highest scores among which precision is stated."""
    calibration_bins: int = Field(15, ge=2, le=1000)
    """Equally full bins of the calibration error."""


class GateSettings(Section):
    """What a challenger must show before it becomes champion."""

    resamples: int = Field(400, ge=20, le=100_000)
    """Paired bootstrap resamples."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Coverage of the interval of a difference."""
    max_loss_average_precision: float = Field(0.02, ge=0, le=1)
    """Average precision the challenger may be below the champion, as measured."""
    max_loss_cost_saved: float = Field(0.05, ge=0, le=1)
    """Share of the amount at risk the challenger may save less than the champion, as measured."""
    min_frauds: int = Field(10, ge=1)
    """Frauds that neither model was fitted on, below which a comparison says nothing."""
    max_calibration_error: float = Field(0.005, gt=0, le=1)
    """Most expected calibration error of the fraud probability on the test part."""
    latency_budget_ms: float = Field(5.0, gt=0)
    """Most milliseconds for one transaction through both models, median."""
    force: bool = False
    """Whether a release is promoted although the gate refuses; this is recorded."""


class ScoreSettings(Section):
    """What batch scoring reads and writes."""

    data: Path | None = None
    """CSV or parquet file of transactions; none: it must be given."""
    output: Path | None = None
    """CSV or parquet file to write, row for row; none: it must be given."""


class SimulateSettings(Section):
    """Which transactions are invented."""

    rows: int = Field(284_807, ge=2)
    """Transactions to invent; by default as many as the ULB set has."""
    seed: int = Field(7, ge=0, lt=2**31)
    """Seed: the same one invents the same transactions."""
    output: Path | None = None
    """CSV or parquet file to write; none: it must be given."""
    prevalence: float = Field(492 / 284_807, gt=0, lt=1)
    """Share of fraud, rounded to whole rows; by default that of the ULB set."""
    change_at: float | None = Field(None, gt=0, lt=1)
    """Share of the rows, in order of Time, after which the pattern changes; null: it does not."""
    changed_fraud_share: float = Field(0.7, ge=0, le=1)
    """Share of the frauds after the change whose V1 to V28 point the other way."""
    changed_feature: str = Field("V14", pattern=r"^V([1-9]|1\d|2[0-8])$")
    """Feature that shifts for all transactions after the change."""
    changed_feature_shift: float = Field(0.5, ge=-10, le=10)
    """By how many of its standard deviations it shifts."""


class Settings(BaseSettings):
    """All settings of ``training``; flags override variables, variables override the file."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )
    file_values: ClassVar[dict[str, Any]] = {}

    data: Path | None = None
    """CSV or parquet file; none: data/creditcard.csv, the public copy, or the simulator."""
    genuine_weight: float = Field(1.0, gt=0)
    """Transactions of the stream a genuine row stands for, where the file has no sample_weight."""
    known_samples: dict[str, float] = {}
    """Genuine weight of files that are known samples of a larger set, by the SHA-256 of the file."""
    seed: int = Field(7, ge=0, lt=2**31)
    """Seed of sampling, first weights and bootstrap."""
    protocol: Literal["random", "temporal"] = "random"
    """How rows are split: at random within each class, or by time (train on the past, test on the end)."""
    threads: int = Field(2, ge=1, le=1024)
    """CPU threads of PyTorch and XGBoost."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network trains; auto takes a GPU when there is one."""
    tracking_uri: str = Field("sqlite:///mlflow.db", min_length=1)
    """MLflow tracking and registry address; MLFLOW_TRACKING_URI overrides the file."""
    refit: bool = True
    """Whether both models are fitted again on training and validation rows, once all is chosen."""
    held_out: Path | None = None
    """Parquet file that the test part is written to as well, in order of Time; none: not written."""
    if_changed: bool = False
    """Whether `train` only imports when the champion has the same data and settings."""
    if_none: bool = False
    """Whether `train` only imports when there is a champion already."""
    split: SplitSettings = SplitSettings()
    network: NetworkSettings = NetworkSettings()
    xgboost: XGBoostSettings = XGBoostSettings()
    decision: DecisionSettings = DecisionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings = GateSettings()
    score: ScoreSettings = ScoreSettings()
    simulate: SimulateSettings = SimulateSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flag, variable, file."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, cls.file_values)


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings from flags (`overrides`), variables and file, in that order.

    Raises
    ------
    SettingsError
        If the file is missing or not YAML, a key is unknown, or a value is out of range.
    """
    path = Path(os.environ.get(f"{ENV_PREFIX}CONFIG", DEFAULT_CONFIG))
    source = type("Settings", (Settings,), {"file_values": _read_yaml(path), "__module__": __name__})
    try:
        _refuse_unknown_variables()
        settings: Settings = source(**_with_mlflow_variable(overrides or {}))
    except ValidationError as error:
        raise SettingsError(_explain(error, path)) from error
    return settings


def required(path: Path | None, flag: str) -> Path:
    """Return the path of a file that a command cannot do without.

    Raises
    ------
    UsageError
        If neither flag, variable nor file names it.
    """
    if path is None:
        raise UsageError(f"{flag} is missing: name a CSV or parquet file")
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: cannot be read as settings: {str(error).splitlines()[0]}") from error
    if values is not None and not isinstance(values, dict):
        raise SettingsError(f"{path}: must hold settings by name")
    return values or {}


def _refuse_unknown_variables() -> None:
    known = {ENV_PREFIX + name.upper() for name in (*Settings.model_fields, "config")}
    for variable in os.environ:
        top = "__".join(variable.upper().split("__")[:2])
        if top.startswith(ENV_PREFIX) and top not in known:
            raise SettingsError(f"{variable} is not a setting; known are {', '.join(sorted(known))}")


def _with_mlflow_variable(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """MLFLOW_TRACKING_URI keeps its usual meaning, below the flag and our own variable."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri and "tracking_uri" not in overrides and f"{ENV_PREFIX}TRACKING_URI" not in os.environ:
        return {**overrides, "tracking_uri": uri}
    return overrides


def _explain(error: ValidationError, path: Path) -> str:
    problems = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors(include_url=False)
    ]
    return f"settings ({path} or {ENV_PREFIX} variables or flags) are wrong: {'; '.join(problems)}"
