"""Figures for the runs: every one names the data it was drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data.labelled import GroundTruth
from training.evaluation.log_odds import logit
from training.evaluation.metrics import ModelOutput
from training.reporting.curves import cost_curve, precision_recall, reliability, roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"neural_net": "network", "xgboost": "XGBoost", "pair": "fraud probability (both)"}
# Colour-blind safe (Okabe and Ito 2008).
COLOURS = {"neural_net": "#0072B2", "xgboost": "#D55E00", "pair": "#009E73"}
GREY = "#666666"
# Of different shape and size: where two models decide alike, both are seen.
MARKERS = {"neural_net": ("s", 11), "xgboost": ("D", 8), "pair": ("o", 5)}
CURVE_LABELS = {
    "validation_auc": "AUC-ROC",
    "validation_average_precision": "average precision",
    "validation_precision": "precision where F1 is best",
    "validation_recall": "recall where F1 is best",
    "validation_f1": "best F1",
    "train_fitting_loss": "training rows, as weighted for fitting",
    "validation_loss": "validation rows",
}


def _figure(
    title: str, data: str, columns: int = 1, width: float = 7.0, height: float = 4.6
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=100)
    axes = np.atleast_1d(figure.subplots(1, columns)).tolist()
    # Margins in inches: a layout engine would draw every figure twice.
    figure.subplots_adjust(
        left=0.85 / width, right=1 - 0.2 / width, bottom=0.6 / height, top=1 - 0.7 / height, wspace=0.2
    )
    figure.text(0.5, 1 - 0.22 / height, title, ha="center", va="center", fontsize=12)
    figure.text(0.5, 1 - 0.47 / height, data, ha="center", va="center", fontsize=8.5, color=GREY)
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def training_curves(
    history: Sequence[Mapping[str, float]], best: int, data: str, unit: str, title: str
) -> Figure:
    """Return loss and validation quality over epochs or boosting rounds, with the one that was kept."""
    figure, (left, right) = _figure(title, data, 2, width=10)
    steps = np.arange(1, len(history) + 1)
    for axis, names in ((left, ("train_fitting_loss", "validation_loss")), (right, (*CURVE_LABELS,)[:5])):
        for name in names:
            if name in history[0]:
                axis.plot(steps, [row[name] for row in history], label=CURVE_LABELS[name])
        axis.axvline(best + 1, color=GREY, linestyle=":", label=f"kept: {unit} {best + 1}")
        axis.set_xlabel(unit)
        axis.legend(fontsize=8)
    left.set(yscale="log", ylabel="log loss")
    right.set(ylim=(None, 1.01), ylabel="validation rows")
    return figure


def precision_recall_curves(
    outputs: Mapping[str, ModelOutput], truth: GroundTruth, data: str, confidence: float, seed: int
) -> Figure:
    """Return precision over recall with bands, and where each decision rule stands."""
    figure, (axis,) = _figure("Precision over recall, test part", data)
    fraud = truth.label == 1
    for name, one in outputs.items():
        band = precision_recall(one.score, truth, confidence=confidence, seed=seed)
        axis.plot(band.x, band.y, color=COLOURS[name], label=NAMES[name])
        axis.fill_between(band.x, band.low, band.high, color=COLOURS[name], alpha=0.12, linewidth=0)
        caught = truth.weight[fraud & one.alarm].sum()
        precision = caught / max(truth.weight[one.alarm].sum(), 1e-300)
        shape, size = MARKERS[name]
        axis.plot(
            caught / truth.weight[fraud].sum(),
            precision,
            shape,
            markersize=size,
            color=COLOURS[name],
            markeredgecolor="white",
        )
    axis.plot([], [], "o", color=GREY, label="at its threshold; both: at the decision")
    axis.set(xlabel="recall", ylabel="precision at the stream's prevalence", xlim=(0, 1.01), ylim=(0, 1.03))
    axis.legend(loc="lower left", fontsize=8)
    return figure


def roc_curves(
    outputs: Mapping[str, ModelOutput], truth: GroundTruth, data: str, confidence: float, seed: int
) -> Figure:
    """Return the ROC with bands; the horizontal axis is logarithmic, as only its left end can be afforded."""
    figure, (axis,) = _figure("Frauds caught over false alarms (ROC), test part", data)
    for name, one in outputs.items():
        band = roc(one.score, truth, confidence=confidence, seed=seed)
        axis.plot(band.x, band.y, color=COLOURS[name], label=NAMES[name])
        axis.fill_between(band.x, band.low, band.high, color=COLOURS[name], alpha=0.12, linewidth=0)
    axis.plot(band.x, band.x, color=GREY, linestyle=":", label="chance")
    axis.set(
        xscale="log",
        xlabel="share of genuine transactions alarmed",
        ylabel="share of frauds caught",
        ylim=(0, 1.02),
    )
    axis.legend(loc="lower right", fontsize=8)
    return figure


def calibration_curve(probability: NDArray[np.float64], truth: GroundTruth, data: str, bins: int) -> Figure:
    """Return observed over predicted share of fraud, both logarithmic."""
    figure, (axis,) = _figure("Calibration of the fraud probability, test part", data)
    found = reliability(probability, truth, bins)
    floor = 1e-6
    observed = np.maximum(found.observed, floor)
    spread = [observed - np.maximum(found.low, floor), np.maximum(found.high - observed, 0)]
    axis.plot([floor, 1], [floor, 1], color=GREY, linestyle=":", label="perfect")
    seen = found.frauds > 0
    axis.errorbar(
        found.predicted[seen],
        observed[seen],
        [part[seen] for part in spread],
        fmt="o",
        color=COLOURS["pair"],
        capsize=2,
        label="bins with frauds (how many), 95 % interval",
    )
    axis.plot(
        np.maximum(found.predicted[~seen], floor),
        np.maximum(found.high[~seen], floor),
        "v",
        color=COLOURS["pair"],
        alpha=0.5,
        label="upper limit where no fraud was seen",
    )
    for x, y, count in zip(found.predicted[seen], observed[seen], found.frauds[seen], strict=True):
        axis.annotate(
            str(count), (x, y), (6, -3), textcoords="offset points", fontsize=7, color=GREY, va="top"
        )
    axis.set(
        xscale="log", yscale="log", xlabel="predicted probability of fraud", ylabel="observed share of fraud"
    )
    axis.legend(loc="upper left", fontsize=8)
    return figure


def cost_curves(
    outputs: Mapping[str, ModelOutput],
    thresholds: Mapping[str, float],
    truth: GroundTruth,
    data: str,
    review_cost: float,
) -> Figure:
    """Return the share of the amount at risk that is saved, over each model's threshold."""
    figure, axes = _figure("Cost saved over the threshold, test part", data, 2, width=10)
    for axis, (name, threshold) in zip(axes, thresholds.items(), strict=True):
        x, saved = cost_curve(outputs[name].score, truth, review_cost)
        axis.plot(logit(x), saved, color=COLOURS[name], label=f"{NAMES[name]} alone")
        axis.axvline(
            logit(np.array([threshold]))[0],
            color=GREY,
            linestyle="--",
            label="threshold, chosen on validation rows",
        )
        axis.set(ylim=(-0.25, 1.02), xlabel=f"threshold on the {NAMES[name]} score, log-odds")
        axis.legend(loc="lower center", fontsize=8)
    axes[0].set_ylabel(f"share of the fraud amount saved\n(an alarm costs {review_cost:g})")
    return figure


def score_distributions(
    outputs: Mapping[str, ModelOutput], thresholds: Mapping[str, float], truth: GroundTruth, data: str
) -> Figure:
    """Return the distribution of each score, by class, on the log-odds scale."""
    figure, axes = _figure("Scores by class, test part", data, 3, width=12)
    for axis, (name, one) in zip(axes, outputs.items(), strict=True):
        values = logit(one.score)
        edges = np.linspace(values.min(), values.max() + 1e-6, 50)
        for label, text, colour in ((0, "genuine", "#56B4E9"), (1, "fraud", "#CC3311")):
            inside = truth.label == label
            weight = truth.weight[inside] / truth.weight[inside].sum()
            axis.hist(values[inside], edges.tolist(), weights=weight, alpha=0.6, color=colour, label=text)
        if name in thresholds:
            axis.axvline(
                logit(np.array([thresholds[name]]))[0], color=GREY, linestyle="--", label="threshold"
            )
        axis.set(yscale="log", xlabel=f"{NAMES[name]}, log-odds")
        axis.yaxis.set_major_formatter(lambda share, _: f"{share * 100:g} %")
        axis.legend(fontsize=8)
    axes[0].set_ylabel("share of the class")
    return figure


def confusion_matrix(decision: NDArray[np.str_], truth: GroundTruth, data: str) -> Figure:
    """Return decisions by class, in transactions of the stream and shares of the class."""
    figure, (axis,) = _figure("Decisions, test part", data, width=6.4, height=3.4)
    kinds = ("approve", "review", "decline")
    counts = np.array(
        [
            [truth.weight[(truth.label == label) & (decision == kind)].sum() for kind in kinds]
            for label in (0, 1)
        ]
    )
    share = counts / counts.sum(1, keepdims=True)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(*share.shape):
        colour = "white" if share[i, j] > 0.5 else "black"
        axis.text(j, i, f"{counts[i, j]:,.0f}\n{share[i, j]:.3%}", ha="center", va="center", color=colour)
    axis.set_xticks(range(3), kinds)
    axis.set_yticks(range(2), ["genuine", "fraud"])
    axis.grid(visible=False)
    return figure


def importance(
    values: Mapping[str, float], title: str, unit: str, data: str, colour: str, most: int = 15
) -> Figure:
    """Return the most important features as bars."""
    figure, (axis,) = _figure(title, data, height=5.0)
    top = sorted(values.items(), key=lambda item: item[1])[-most:]
    axis.barh([name for name, _ in top], [value for _, value in top], color=colour)
    axis.set_xlabel(unit)
    return figure


def save(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure as ``<name>.png``."""
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
