"""Which plots a training gets, for the pair and for each model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from training.data.transactions import FEATURES
from training.models.network import Attribution
from training.models.training import TrainingResult
from training.reporting import plots

ATTRIBUTED_ROWS = 1000  # genuine rows whose reasons are averaged, beside all frauds


def caption(training: TrainingResult) -> str:
    """Return which data a plot shows."""
    data = training.data
    counts = f"{len(data):,} rows, {data.frauds} frauds ({data.prevalence:.3%})"
    return f"{data.name}: {counts}, {training.split.protocol} split"


def draw_pair(training: TrainingResult, folder: Path) -> None:
    """Write the plots that compare both models and what they say together."""
    settings, truth, text = training.settings, training.test.truth, caption(training)
    confidence, seed = settings.evaluation.confidence, settings.seed
    thresholds = asdict(training.fitted.rule.thresholds)
    scores = training.fitted.scores(training.test.features)
    decision = training.fitted.rule.decide(*scores, training.test.truth.amount).action
    plots.save(
        {
            "precision_recall": plots.precision_recall_curves(
                training.outputs, truth, text, confidence, seed
            ),
            "roc": plots.roc_curves(training.outputs, truth, text, confidence, seed),
            "calibration": plots.calibration_curve(training.outputs["pair"].score, truth, text, 12),
            "cost": plots.cost_curves(
                training.outputs, thresholds, truth, text, settings.decision.review_cost
            ),
            "scores": plots.score_distributions(training.outputs, thresholds, truth, text),
            "decisions": plots.confusion_matrix(decision, truth, text),
        },
        folder,
    )


def draw_network(training: TrainingResult, folder: Path) -> None:
    """Write the network's training curves and what moves its score."""
    fitted, text = training.fitted.network, caption(training)
    reasons = plots.importance(
        _mean_contributions(training),
        "What moves the network's score, test part",
        "mean |contribution| to the log-odds, classes weighted equally",
        text,
        plots.COLOURS["neural_net"],
    )
    curves = plots.training_curves(
        fitted.history, fitted.best_epoch, text, "epoch", "Training of the network"
    )
    plots.save({"training": curves, "importance": reasons}, folder)


def draw_trees(training: TrainingResult, folder: Path) -> None:
    """Write the trees' training curves and which features they split on."""
    fitted, text = training.fitted.trees, caption(training)
    gain = dict.fromkeys(FEATURES, 0.0) | {
        FEATURES[int(name[1:])]: float(np.mean(value))
        for name, value in fitted.booster.get_score(importance_type="total_gain").items()
    }
    total = sum(gain.values()) or 1.0
    share = {name: value / total for name, value in gain.items()}
    bars = plots.importance(
        share, "What XGBoost splits on", "share of the total gain", text, plots.COLOURS["xgboost"]
    )
    curves = plots.training_curves(fitted.history, fitted.best_tree, text, "round", "Training of XGBoost")
    plots.save({"training": curves, "importance": bars}, folder)


def _mean_contributions(training: TrainingResult) -> dict[str, float]:
    label = training.test.truth.label
    rng = np.random.default_rng(training.settings.seed)
    means = []
    for rows in (np.flatnonzero(label == 0), np.flatnonzero(label == 1)):
        some = rng.permutation(rows)[:ATTRIBUTED_ROWS]
        with torch.no_grad():
            attribution = Attribution(training.fitted.network.module)
            contributions = attribution(torch.from_numpy(training.test.features[some]))[:, : len(FEATURES)]
            means.append(contributions.abs().mean(0).numpy())
    return dict(zip(FEATURES, ((means[0] + means[1]) / 2).tolist(), strict=True))
