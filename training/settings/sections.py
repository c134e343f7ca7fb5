"""The blocks of ``configs/training.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Share = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitSettings(Section):
    """How the rows are divided; what remains is the training part."""

    seed: int = Field(
        7,
        ge=0,
        lt=2**31,
        description="Seed of a random split; its own, so that retraining is judged on the same rows.",
    )
    validation_share: float = Field(
        0.2, gt=0, lt=0.5, description="Share of rows for early stopping, calibration and thresholds."
    )
    test_share: float = Field(0.2, gt=0, lt=0.5, description="Share of rows that no choice ever sees.")


class NetworkSettings(Section):
    """The network and its training loop."""

    hidden: tuple[PositiveInt, ...] = Field(
        (512, 256, 128, 64), min_length=1, description="Units of each hidden layer, input side first."
    )
    dropout: float = Field(
        0.3, ge=0, lt=1, description="Share of units silenced in each hidden layer while training."
    )
    epochs: int = Field(30, ge=1, le=10_000, description="Most passes over the training part.")
    batch_rows: int = Field(512, ge=2, description="Rows in a gradient step.")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Adam's first step size.")
    weight_decay: float = Field(0.0, ge=0, description="Adam's L2 penalty on the weights.")
    mixup: float = Field(
        0.4,
        ge=0,
        le=10,
        description=(
            "Rows are mixed in pairs by a share from Beta(mixup, mixup) (Zhang et al. 2018, eq. 1); 0 "
            "mixes none."
        ),
    )
    averaging: float = Field(
        0.99,
        ge=0,
        lt=1,
        description=(
            "Share that a step leaves of the running mean of weights, which is what is stored; 0: the "
            "last ones."
        ),
    )
    positive_weight: float = Field(
        2.0, gt=0, description="How much a fraud counts in the loss, in genuine rows."
    )
    genuine_per_fraud: float = Field(
        30.0, ge=0, description="Genuine rows kept per fraud in the training part; 0 keeps all."
    )
    plateau_factor: float = Field(
        0.5, gt=0, lt=1, description="Multiplier of the step size when validation stalls."
    )
    plateau_patience_epochs: int = Field(2, ge=0, description="Stalled epochs before the step size shrinks.")
    stopping_patience_epochs: int = Field(8, ge=1, description="Stalled epochs before training ends.")
    monitor_rows: int = Field(
        20_000, ge=1, description="Most genuine validation rows looked at after each epoch."
    )
    members: int = Field(
        1, ge=1, le=32, description="Networks with different first weights whose log-odds are averaged."
    )


class XGBoostSettings(Section):
    """The gradient-boosted trees."""

    trees: int = Field(300, ge=1, le=100_000, description="Most trees, those side by side included.")
    parallel_trees: int = Field(
        2,
        ge=1,
        le=64,
        description=(
            "Trees in a boosting round, each on rows and features of its own: a round is then a small forest."
        ),
    )
    max_depth: int = Field(6, ge=1, le=20, description="Most splits from root to leaf.")
    learning_rate: float = Field(0.2, gt=0, le=1, description="Shrinkage of each tree.")
    scale_pos_weight: float = Field(10.0, gt=0, description="How much a fraud counts, in genuine rows.")
    subsample: float = Field(0.8, gt=0, le=1, description="Share of rows each tree sees.")
    columns_per_node: float = Field(
        0.3, gt=0, le=1, description="Share of features each split may choose from."
    )
    bins: int = Field(
        1024,
        ge=2,
        le=65_536,
        description="Most values a feature is reduced to; fine, since exact Amounts tell.",
    )
    min_child_weight: float = Field(1.0, ge=0, description="Least hessian weight of a leaf.")
    regularisation_l2: float = Field(1.0, ge=0, description="L2 shrinkage of leaf values.")
    # As many as there are trees never cuts. On the ULB subset a cut costs: AP .847 without, .785 with 50,
    # measured at a learning rate of .3 with one tree a round. The
    # AUC of some 70 validation frauds peaks by chance after a few dozen trees, while AP still rises.
    stopping_patience_trees: int = Field(
        300,
        ge=1,
        description=(
            "Trees without a better validation AUC before boosting ends and is cut back to its best tree."
        ),
    )
    genuine_per_fraud: float = Field(
        100.0, ge=0, description="Genuine rows kept per fraud in the training part; 0 keeps all."
    )


class DecisionSettings(Section):
    """What errors cost; decides the thresholds."""

    review_cost: float = Field(
        1.0,
        gt=0,
        description="Cost of one alarm, in the currency of Amount; a missed fraud costs its Amount.",
    )
    min_precision: float = Field(
        0.55,
        ge=0,
        lt=1,
        description=(
            "Least share of frauds among the alarms on validation rows; 0 leaves the choice to the "
            "costs alone."
        ),
    )
    min_probability: float = Field(
        0.15,
        ge=0,
        lt=1,
        description=(
            "Least probability of fraud that a score must mean, heard alone, for its model to be alarmed, "
            "unless that would lose a tenth of the frauds; 0: no such bound."
        ),
    )
    cost_slack: float = Field(
        0.05,
        ge=0,
        lt=1,
        description=(
            "Recall first: share of the amount at risk that may be spent beyond the cheapest "
            "thresholds allowed."
        ),
    )
    review_capacity: float = Field(
        0.005,
        ge=0,
        le=1,
        description=(
            "Most transactions that may be reviewed or declined, as a share of the stream; 0: no review "
            "for expected loss."
        ),
    )
    review_multiplier: float | None = Field(
        None,
        gt=0,
        description=(
            "Review also where fraud probability times Amount reaches this many review costs; none: chosen "
            "on validation rows to save most within the capacity."
        ),
    )


class LimitSettings(Section):
    """What a feature may be, in training as in serving: a row outside is refused."""

    time_max_s: float = Field(1e10, gt=0, le=3e38, description="Largest Time; the smallest is 0.")
    component_max: float = Field(1000.0, gt=0, le=3e38, description="Largest absolute value of V1 to V28.")
    amount_max: float = Field(
        1e12, gt=0, le=3e38, description="Largest Amount, account currency; the smallest is 0."
    )


class EvaluationSettings(Section):
    """How the test part is summarised."""

    resamples: int = Field(400, ge=20, le=100_000, description="Bootstrap resamples behind every interval.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Coverage of the intervals.")
    alarm_rates: tuple[Share, ...] = Field(
        (0.0005, 0.001, 0.002, 0.005), description="Shares of transactions alarmed at which recall is stated."
    )
    precision_at_k: tuple[PositiveInt, ...] = Field(
        (50, 100), description="Numbers of highest scores among which precision is stated."
    )
    calibration_bins: int = Field(
        15, ge=2, le=1000, description="Equally full bins of the calibration error."
    )


class GateSettings(Section):
    """What a challenger must show before it becomes champion."""

    resamples: int = Field(400, ge=20, le=100_000, description="Paired bootstrap resamples.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Coverage of the interval of a difference.")
    max_loss_average_precision: float = Field(
        0.02,
        ge=0,
        le=1,
        description=(
            "Average precision the challenger may be below the champion, as measured on the rows new to "
            "both; 0: none."
        ),
    )
    max_loss_cost_saved: float = Field(
        0.05,
        ge=0,
        le=1,
        description=(
            "Share of the amount at risk the challenger may save less than the champion, as measured on the "
            "rows new to both; 0: none."
        ),
    )
    min_frauds: int = Field(
        10,
        ge=1,
        description=(
            "Test frauds below which nothing can be judged; of these only frauds that the champion was not "
            "fitted on are compared."
        ),
    )
    min_skill: float = Field(
        0.05,
        ge=0,
        lt=1,
        description=(
            "Least skill, at the lower end of its interval: how far average precision is from the "
            "prevalence, which no skill reaches, towards 1."
        ),
    )
    max_loss_to_baseline: float = Field(
        0.02,
        ge=0,
        le=1,
        description=(
            "Average precision the release may be below logistic regression on the same rows, at the lower "
            "end of the difference: `confidence` holds for this end alone."
        ),
    )
    calibration_confidence: float = Field(
        0.999,
        gt=0.5,
        lt=1,
        description="Coverage of what chance explains of a difference between probabilities and frauds seen.",
    )
    calibration_tolerance: float = Field(
        1.5,
        ge=1,
        description=(
            "Factor by which the frauds promised, and the slope of the log-odds, may be off beyond what "
            "chance explains."
        ),
    )
    max_calibration_error: float | None = Field(
        None,
        gt=0,
        le=1,
        description=(
            "Most expected calibration error on the test part, on top of the test of calibration; it "
            "depends on the prevalence. None: no such limit."
        ),
    )
    live: str | None = Field(
        None,
        description=(
            "File or http address of the monitor's /quality.json, which `promote challenger` asks as well; "
            "none: it is not asked."
        ),
    )
    latency_budget_ms: float = Field(
        5.0, gt=0, description="Most milliseconds for one transaction through both models, median."
    )
    force: bool = Field(
        False, description="Whether a release is promoted although the gate refuses; this is recorded."
    )


class FetchSettings(Section):
    """How long the public copy of the data is waited for, where no file is named."""

    timeout_s: float = Field(
        5.0, gt=0, description="Longest wait for an answer and for each further block, seconds."
    )
    deadline_s: float = Field(
        180.0, gt=0, description="Longest download, seconds: raise it for a slow line (150 MB)."
    )


class StoreSettings(Section):
    """The BentoML model store that services load from."""

    keep_releases: int = Field(
        5,
        ge=1,
        description="Imported releases to keep. Never deleted: active, challenger, previous, served ones, "
        "and those inside a bento.",
    )


class ScoreSettings(Section):
    """What batch scoring reads and writes, and where it runs."""

    release: str | None = Field(None, description="Number of the release that scores; none: the champion.")
    data: str | None = Field(
        None,
        description="CSV or parquet file of transactions; with Spark also a folder of them, "
        "or an address such as s3a://bucket/folder. None: it must be given.",
    )
    output: str | None = Field(
        None,
        description="CSV or parquet file to write, row for row; with Spark a folder or its address. "
        "None: it must be given.",
    )
    engine: Literal["process", "spark"] = Field(
        "process",
        description="Where rows are scored: in this process, or by tasks of Apache Spark, "
        "which needs Java and the group `spark`.",
    )
    master: str | None = Field(
        None,
        description="Spark's master: local[*], spark://host:port, yarn or k8s://host:port. "
        "None: what spark-defaults.conf says, else local[*].",
    )
    partition_mib: int = Field(
        128,
        ge=1,
        le=65_536,
        description="MiB that a Spark task scores: large parquet files are shared by their row groups, "
        "small files go together.",
    )
    spark: dict[str, str] = Field(
        {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"},
        description="Spark's own settings by their names; they win over spark-defaults.conf.",
    )


class SimulateSettings(Section):
    """Which transactions are invented."""

    rows: int = Field(
        284_807, ge=2, description="Transactions to invent; by default as many as the ULB set has."
    )
    seed: int = Field(7, ge=0, lt=2**31, description="Seed: the same one invents the same transactions.")
    output: Path | None = Field(None, description="CSV or parquet file to write; none: it must be given.")
    prevalence: float = Field(
        492 / 284_807,
        gt=0,
        lt=1,
        description="Share of fraud, in whole rows; by default that of the ULB set.",
    )
    transaction_ids: bool = Field(
        False, description="Name each row in a column `transaction_id`; no: the columns of the ULB set."
    )
    change_at: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=(
            "Share of the rows, in order of Time, after which the pattern changes; none: it does not."
        ),
    )
    changed_fraud_share: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Share of the frauds after the change whose V1 to V28 point the other way.",
    )
    changed_feature: str = Field(
        "V14",
        pattern=r"^V([1-9]|1\d|2[0-8])$",
        description="Feature that shifts for all transactions after the change.",
    )
    changed_feature_shift: float = Field(
        0.5, ge=-10, le=10, description="By how many of its standard deviations it shifts."
    )
