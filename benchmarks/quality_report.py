"""What repeated splits say together: paired differences, targets, a table and a plot."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

RESULTS = Path(__file__).with_name("results")
MIN_PRECISION = 0.6  # what the target asks of the decision
RESAMPLES = 10_000
Floats = NDArray[np.float64]

OURS = ("our network", "our XGBoost", "our pair")
ORIGINALS = ("original network", "original XGBoost")
BASELINES = ("logistic regression", "HistGradientBoosting")
COLUMNS = {
    "auc": "AUC",
    "average_precision": "AP",
    "precision": "P",
    "recall": "R",
    "f1": "F1",
    "false_alarm_rows": "false alarms, rows",
    "cost_saved": "saved",
    "handled_rate": "looked at",
    "tail_error": "tail error",
    "best_recall": "best R at P≥.6",
    "best_cost_saved": "best saved",
}


@dataclass(frozen=True)
class Outcome:
    """What one split showed."""

    seed: int
    frauds: int
    test_to_train: float  # rows of the test part over rows fitted on
    figures: Mapping[str, Mapping[str, float]]  # model -> metric -> value on the test part
    seconds: Mapping[str, float]


def column(outcomes: Sequence[Outcome], model: str, metric: str) -> Floats:
    """Return a metric of a model on every split."""
    return np.array([outcome.figures[model][metric] for outcome in outcomes])


def paired(outcomes: Sequence[Outcome], ours: Floats, theirs: Floats) -> dict[str, float]:
    """Return the mean difference over splits with its interval, and on how many splits ours is above.

    Notes
    -----
    Splits share rows, so that their differences vary less than those of other data would. Nadeau and Bengio
    (2003), eq. 9: the variance of the mean is ``(1/k + n_test/n_train)`` that of one difference.
    """
    difference = ours - theirs
    mean, half, splits = float(difference.mean()), float("nan"), len(difference)
    if splits > 1:
        share = float(np.mean([outcome.test_to_train for outcome in outcomes]))
        half = float(student.ppf(0.975, splits - 1) * difference.std(ddof=1) * (1 / splits + share) ** 0.5)
    return {
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "least": float(difference.min()),
        "above": int((difference > 0).sum()),
        "splits": splits,
    }


def differences(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Return how far our pair is above each rival in average precision, and in cost saved."""
    ap = {name: column(outcomes, name, "average_precision") for name in outcomes[0].figures}
    better = np.maximum(*(ap[name] for name in ORIGINALS))
    result = {"AP: our pair - better original": paired(outcomes, ap["our pair"], better)}
    for name in (*ORIGINALS, *BASELINES):
        result[f"AP: our pair - {name}"] = paired(outcomes, ap["our pair"], ap[name])
    best = np.maximum(*(column(outcomes, name, "best_cost_saved") for name in ORIGINALS))
    ours = column(outcomes, "our pair", "cost_saved")
    result["saved: our pair - better original in hindsight"] = paired(outcomes, ours, best)
    return result


def targets(
    outcomes: Sequence[Outcome], gaps: Mapping[str, Mapping[str, float]], protocol: str
) -> list[tuple[str, str, bool]]:
    """Return each target, what was reached, and whether that is enough."""
    ap = gaps["AP: our pair - better original"]
    if protocol == "rolling":
        reached = f"{ap['above']} of {len(outcomes)}"
        return [("AP above the better original in most windows", reached, 2 * ap["above"] > len(outcomes))]
    median = {
        metric: float(np.median(column(outcomes, "our pair", metric)))
        for metric in ("auc", "average_precision", "recall", "precision", "cost_saved", "handled_rate")
    }
    better = np.maximum(*(column(outcomes, name, "average_precision") for name in ORIGINALS))
    saved, looked_at = median["cost_saved"], median["handled_rate"]
    return [
        ("median AUC ≥ .985", f"{median['auc']:.4f}", median["auc"] >= 0.985),
        (
            "median AP not below the better original's",
            f"{median['average_precision']:.4f}, {np.median(better):.4f}",
            median["average_precision"] >= float(np.median(better)),
        ),
        ("AP within .02 of it on each split", f"{ap['least']:+.4f} at least", ap["least"] >= -0.02),
        ("median recall ≥ .86", f"{median['recall']:.3f}", median["recall"] >= 0.86),
        ("median precision ≥ .60", f"{median['precision']:.3f}", median["precision"] >= MIN_PRECISION),
        ("median saved ≥ .86", f"{saved:.3f}", saved >= 0.86),
        ("median looked at ≤ .5 %", f"{looked_at:.2%}", looked_at <= 0.005),
    ]


def _median(values: Floats, metric: str) -> str:
    """Return the median over splits and, beneath, its bootstrap interval."""
    digits = {"handled_rate": 5, "false_alarm_rows": 0}.get(metric, 3)
    median = f"{np.median(values):.{digits}f}"
    if len(values) == 1:
        return median
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
    low, high = (f"{bound:.{digits}f}".lstrip("0") for bound in np.quantile(medians, [0.025, 0.975]))
    return f"{median}\n{low}-{high}"


def print_quality(console: Console, outcomes: Sequence[Outcome], document: Mapping[str, Any]) -> None:
    """Print medians by model with their intervals, paired differences and targets."""
    table = Table(
        title=f"{document['data']}, {len(outcomes)} splits: medians at the stream's prevalence, intervals",
        show_lines=True,
    )
    table.add_column("model")
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    for model in outcomes[0].figures:
        cells = [_median(column(outcomes, model, metric), metric) for metric in COLUMNS]
        table.add_row(model, *cells, style="bold" if model in OURS else None)
    console.print(table)
    gaps = Table(title="Paired differences, mean over splits with 95 % interval (Nadeau-Bengio)")
    for title in ("difference", "mean", "interval", "above"):
        gaps.add_column(title)
    for name, gap in document["differences"].items():
        interval = f"{gap['low']:+.4f} to {gap['high']:+.4f}" if gap["splits"] > 1 else "one split"
        gaps.add_row(name, f"{gap['mean']:+.4f}", interval, f"{gap['above']} of {gap['splits']}")
    console.print(gaps)
    for target in document["targets"] if len(outcomes) > 1 else ():  # targets speak of repeated splits
        mark = "[green]reached[/green]" if target["reached"] else "[red]not reached[/red]"
        console.print(f"{target['target']:<48}{target['value']:<16}{mark}")


def print_speed(console: Console, spent: Mapping[str, Sequence[tuple[float, float]]], title: str) -> None:
    """Print median wall and processor seconds; on a busy machine the latter compare better."""
    medians = {name: np.median(np.array(pairs), axis=0) for name, pairs in spent.items()}
    original = sum(medians[name] for name in ORIGINALS)
    ratio = original / medians["our pair"]
    table = Table(title=f"Fit time on {title}")
    for column_title in ("what", "seconds", "processor seconds"):
        table.add_column(column_title, justify="left" if column_title == "what" else "right")
    for name, (wall, cpu) in {**medians, "original, both": original}.items():
        table.add_row(name, f"{wall:.1f}", f"{cpu:.1f}")
    table.add_row("original / ours", f"{ratio[0]:.2f}", f"{ratio[1]:.2f}")
    console.print(table)


def plot(outcomes: Sequence[Outcome], path: Path, title: str) -> None:
    """Draw average precision by split and model, and where each model's decisions lie."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = (*ORIGINALS, *BASELINES, *OURS)
    colors = dict(zip(names, plt.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.6), width_ratios=(3, 2), layout="constrained")
    places = np.arange(len(outcomes))
    for i, name in enumerate(names):
        shift = 0.09 * (i - len(names) / 2)
        ap = column(outcomes, name, "average_precision")
        left.plot(
            places + shift, ap, "o", color=colors[name], ms=8 if name == "our pair" else 5, label=f"{name}"
        )
        recall, precision = column(outcomes, name, "recall"), column(outcomes, name, "precision")
        right.plot(recall, precision, "o", color=colors[name], ms=3, alpha=0.35)
        right.plot(
            np.median(recall), np.median(precision), "D", color=colors[name], ms=9, mec="black", alpha=0.8
        )
    left.set(xlabel="split", ylabel="average precision", title="Average precision on each split's test part")
    left.set_xticks(places, [str(outcome.seed) for outcome in outcomes])
    left.grid(axis="y", alpha=0.3)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False)
    right.axhline(MIN_PRECISION, color="grey", ls=":", lw=1)
    right.axvline(0.86, color="grey", ls=":", lw=1)
    right.set(xlabel="recall", ylabel="precision", title="Decisions: each split, and the median (diamond)")
    right.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def machine() -> str:
    """Return processor, cores, load and software, as far as they decide a figure."""
    import torch
    import xgboost

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = found[0] if found else model
    load = f"load {os.getloadavg()[0]:.1f}"
    return (
        f"{model}, {os.cpu_count()} cores, {load}, torch {torch.__version__}, XGBoost {xgboost.__version__}"
    )


def save(document: Mapping[str, Any], name: str) -> Path:
    """Write a result beside this script; return where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / name
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path
