"""The gradient-boosted trees: XGBoost on a quantile matrix, prior-corrected."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray
from typing_extensions import override

from training.data.labelled import LabelledRows
from training.evaluation.log_odds import logit, sigmoid
from training.evaluation.metrics import at_best_f1
from training.models.sampling import Sample, prior_shift, undersample
from training.models.validation import EpochReport, History, ignore_epoch, sample_validation_rows
from training.settings.sections import XGBoostSettings

METRICS = {"logloss": "fitting_loss", "aucpr": "average_precision", "auc": "auc"}  # XGBoost's name to ours


@dataclass(frozen=True, eq=False)
class FittedTrees:
    """The booster, cut at its best tree where that is asked for, with how it came about."""

    booster: xgboost.Booster
    history: History  # figures after each boosting round, on training and validation rows
    best_tree: int  # 0-based boosting round that was kept last; a round may hold several trees
    seconds: float
    rows: int


def fit_trees(
    train: LabelledRows,
    validation: LabelledRows,
    settings: XGBoostSettings,
    *,
    seed: int,
    threads: int,
    monitored: int = 20_000,
    report: EpochReport = ignore_epoch,
) -> FittedTrees:
    """Fit the trees and watch validation rows; the booster ends at its best tree if patience ran out."""
    started = time.perf_counter()
    sample, matrix = _matrix(train, settings, seed, threads)
    watched = sample_validation_rows(validation, monitored, seed)
    other = xgboost.QuantileDMatrix(
        watched.features,
        watched.truth.label,
        weight=watched.truth.weight,
        ref=matrix,
        max_bin=settings.bins,
        nthread=threads,
    )
    record: dict[str, dict[str, list[float]]] = {}
    booster = xgboost.train(
        _parameters(settings, sample, seed, threads),
        matrix,
        num_boost_round=_rounds(settings.trees, settings),
        evals=[(matrix, "train"), (other, "validation")],
        evals_result=record,
        custom_metric=partial(_own_metrics, prior_shift(sample.kept_share, settings.scale_pos_weight)),
        verbose_eval=False,
        callbacks=[*_stopping(settings), _Reporting(report)],
    )
    history = _history(record)
    best = int(booster.best_iteration) if _may_stop(settings) else len(history) - 1
    stored = correct_trees(booster[: best + 1], sample, settings)
    return FittedTrees(stored, history, best, time.perf_counter() - started, len(sample.rows))


def refit_trees(
    everything: LabelledRows, fitted: FittedTrees, settings: XGBoostSettings, *, seed: int, threads: int
) -> FittedTrees:
    """Fit again on more rows, for as many rounds as were kept."""
    started = time.perf_counter()
    sample, matrix = _matrix(everything, settings, seed, threads)
    parameters = _parameters(settings, sample, seed, threads)
    booster = xgboost.train(parameters, matrix, num_boost_round=fitted.best_tree + 1)
    stored = correct_trees(booster, sample, settings)
    seconds = fitted.seconds + time.perf_counter() - started
    return FittedTrees(stored, fitted.history, fitted.best_tree, seconds, len(sample.rows))


def tree_scores(booster: xgboost.Booster, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the booster's scores [n] of raw features [n, 30]."""
    scores: NDArray[np.float32] = booster.inplace_predict(features, validate_features=False)
    return scores


def _matrix(
    part: LabelledRows, settings: XGBoostSettings, seed: int, threads: int
) -> tuple[Sample, xgboost.QuantileDMatrix]:
    truth = part.truth
    rng = np.random.default_rng(seed)
    sample = undersample(truth.label, truth.weight, settings.genuine_per_fraud, rng)
    matrix = xgboost.QuantileDMatrix(
        part.features[sample.rows],
        truth.label[sample.rows],
        weight=sample.weight,
        max_bin=settings.bins,
        nthread=threads,
    )
    return sample, matrix


def _rounds(trees: int, settings: XGBoostSettings) -> int:
    """Return how many boosting rounds make about this many trees."""
    return max(1, trees // settings.parallel_trees)


def _may_stop(settings: XGBoostSettings) -> bool:
    return settings.stopping_patience_trees < settings.trees


def _stopping(settings: XGBoostSettings) -> list[xgboost.callback.TrainingCallback]:
    if not _may_stop(settings):
        return []
    return [
        xgboost.callback.EarlyStopping(
            rounds=_rounds(settings.stopping_patience_trees, settings),
            metric_name="auc",
            data_name="validation",
        )
    ]


def _parameters(settings: XGBoostSettings, sample: Sample, seed: int, threads: int) -> dict[str, object]:
    return {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_bin": settings.bins,
        "max_depth": settings.max_depth,
        "learning_rate": settings.learning_rate,
        "num_parallel_tree": settings.parallel_trees,
        "scale_pos_weight": settings.scale_pos_weight,
        "subsample": settings.subsample,
        "colsample_bynode": settings.columns_per_node,
        "min_child_weight": settings.min_child_weight,
        "reg_lambda": settings.regularisation_l2,
        "eval_metric": list(METRICS),
        "seed": seed,
        "nthread": threads,
    }


def _own_metrics(
    shift: float, score: NDArray[np.float32], matrix: xgboost.DMatrix
) -> list[tuple[str, float]]:
    """Return what the network's history has beside XGBoost's own metrics, on the same scale.

    The loss is that of the corrected score, so that it compares with the network's.
    """
    weight, fraud = matrix.get_weight().astype(np.float64), matrix.get_label() == 1
    log_odds = logit(score) + shift
    loss = np.average(np.logaddexp(0, np.where(fraud, -log_odds, log_odds)), weights=weight)
    return [("loss", float(loss)), *at_best_f1(score.astype(np.float64), fraud, weight).items()]


class _Reporting(xgboost.callback.TrainingCallback):
    """Tells what each boosting round reached while the next one is fitted."""

    def __init__(self, report: EpochReport) -> None:
        super().__init__()
        self._report = report

    @override
    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self._report(epoch + 1, _history(evals_log)[epoch])
        return False


def _history(record: Mapping[str, Mapping[str, Any]]) -> History:
    """Return XGBoost's record under the names the network's history has, so that MLflow compares them."""
    rounds = range(len(record["validation"]["auc"]))
    return [
        {
            f"{part}_{METRICS.get(name, name)}": values[i]
            for part, found in record.items()
            for name, values in found.items()
        }
        for i in rounds
    ]


def correct_trees(booster: xgboost.Booster, sample: Sample, settings: XGBoostSettings) -> xgboost.Booster:
    """Return the booster with the prior correction added to every margin: its base score is a constant."""
    document = json.loads(booster.save_raw("json"))
    model = document["learner"]["learner_model_param"]
    before = np.array([float(model["base_score"].strip("[]"))])
    shift = prior_shift(sample.kept_share, settings.scale_pos_weight)
    after = sigmoid(logit(before, epsilon=1e-15) + shift)[0]
    model["base_score"] = f"[{after:.9E}]"
    return xgboost.Booster(model_file=bytearray(json.dumps(document).encode()))
