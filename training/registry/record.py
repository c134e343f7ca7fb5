"""A training -> MLflow: figures, plots and the card on its runs, its models stored, a release registered."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training.models.onnx_export import export_onnx
from training.models.training import TrainingResult
from training.registry.packages import XGBOOST, log_network, log_pair, log_trees, quiet, reference_features
from training.registry.promotion_check import FITTED_KEYS, fitted_keys
from training.registry.recipe import COMMAND_SETTINGS
from training.registry.release_document import build_document, describe_parts
from training.registry.releases import NETWORK, RELEASE, TREES, Registry, Release, translate_registry_errors
from training.registry.training_runs import LABELS, TrainingRuns, training_tags
from training.reporting.model_card import describe_version, figure_text, model_card
from training.reporting.training_plots import draw_network, draw_pair, draw_trees
from training.scoring.latency import measure_latency
from training.scoring.scorer import ReleaseScorer

# The address of the registry may carry credentials, and everybody who reads runs would see them.
NOT_RECORDED = {"tracking_uri"} | COMMAND_SETTINGS


def record_release(
    runs: TrainingRuns, training: TrainingResult, source: str
) -> tuple[Release, dict[str, dict[str, float]]]:
    """Record a training on its runs and register it as a release; promote nothing.

    Returns
    -------
    tuple of Release and dict
        The release and the latency of each stored model in milliseconds.
    """
    registry = runs.registry
    with tempfile.TemporaryDirectory() as folder:
        document = build_document(
            training, run_id=runs["pair"].id, trained_at=runs.started.isoformat(timespec="seconds")
        )
        files = Path(folder) / "files"
        files.mkdir()
        _write_files(training, document, files)
        latency = measure_latency(ReleaseScorer(files, threads=1), reference_features())
        _record_figures(runs, training, latency)
        _record_data(runs, training, document["data"], source)
        _draw(runs, training, Path(folder) / "plots")
        parts = describe_parts(training.data, training.split)
        card = model_card(document, training.figures, training.settings, parts, latency)
        runs["pair"].text(card, "model_card.md")
        runs["pair"].text(training.settings.model_dump_json(indent=2, exclude=NOT_RECORDED), "settings.json")
        with translate_registry_errors(registry.tracking_uri), quiet():
            number = _register(registry, runs, training, files)
    _name_runs(runs, number, card)
    return registry.release(number), latency


def _record_figures(
    runs: TrainingRuns, training: TrainingResult, latency: Mapping[str, Mapping[str, float]]
) -> None:
    settings = training.settings
    for model, run in runs.items():
        run.figures(training.figures[model])
    for model in ("neural_net", "xgboost"):  # beside its own figures, the release shows those of its models
        values = {name: figure.value for name, figure in training.figures[model].items()}
        prefix = f"test_{LABELS[model].strip()}"
        runs["pair"].history([{f"{prefix}/{name}": value for name, value in values.items()}])
    fitted, limits = training.fitted, asdict(training.fitted.rule.thresholds)
    for model, part, kept in (
        ("neural_net", fitted.network, fitted.network.best_epoch),
        ("xgboost", fitted.trees, fitted.trees.best_tree),
    ):
        runs.complete_history(model, part.history)
        fit = {"fit_seconds": part.seconds, "fit_rows": part.rows, "fit_steps_kept": kept + 1}
        runs[model].history([{**fit, **latency[model], "threshold": limits[model]}])
    split = _flat(settings.split.model_dump(), "split.")
    named = {"seed", "protocol", "refit", "refit_newest"}
    shared = settings.model_dump(include=named) | split
    # A parameter named after a file's digest would be a column of its own in every comparison.
    everything = settings.model_dump(exclude=NOT_RECORDED | {"known_samples"})
    runs["pair"].parameters(_flat(everything) | _environment())
    runs["neural_net"].parameters(shared | _flat(settings.network.model_dump()))
    runs["xgboost"].parameters(shared | _flat(settings.xgboost.model_dump()))


def _record_data(runs: TrainingRuns, training: TrainingResult, about: Mapping[str, Any], source: str) -> None:
    profile = {**about, **describe_parts(training.data, training.split)}
    for _, run in runs.items():
        run.dataset(training.data.name, training.data.fingerprint, source, profile)


def _draw(runs: TrainingRuns, training: TrainingResult, folder: Path) -> None:
    for model, draw in (("pair", draw_pair), ("neural_net", draw_network), ("xgboost", draw_trees)):
        (folder / model).mkdir(parents=True)
        draw(training, folder / model)
        runs[model].files(folder / model, "plots")


def _environment() -> dict[str, str]:
    names = ("torch", XGBOOST, "numpy", "scikit-learn", "mlflow", "onnxruntime")
    return {
        "environment.python": platform.python_version(),
        "environment.machine": platform.platform(),
        **{f"environment.{name}": version(name) for name in names},
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _write_files(training: TrainingResult, document: Mapping[str, Any], folder: Path) -> None:
    """Write what the release carries."""
    features = reference_features()
    scores = training.served.scores(features)
    export_onnx(training.served.network.module, folder)
    training.served.trees.booster.save_model(folder / "model.ubj")
    (folder / "release.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
    batch = {"features": features.tolist(), "neural_net": scores[0].tolist(), "xgboost": scores[1].tolist()}
    (folder / "reference.json").write_text(json.dumps(batch), encoding="utf-8")
    fitted_keys(training).save(folder / FITTED_KEYS)


def _register(registry: Registry, runs: TrainingRuns, training: TrainingResult, files: Path) -> str:
    """Store and register the two models, then the pair, whose version number becomes the release's."""
    network = log_network(runs["neural_net"].id, training.served.network.module, files)
    trees = log_trees(runs["xgboost"].id, training.served.trees.booster)
    pair = log_pair(runs["pair"].id, files)
    about = f"test part of {training.data.name}, {training.split.protocol} split"
    tags, figures = training_tags(training.data, training.settings), training.figures
    versions = {
        tag: registry.register(name, uri, runs[model].id, tags, describe_version(figures[model], about))
        for tag, name, uri, model in (
            ("network_version", NETWORK, network, "neural_net"),
            ("xgboost_version", TREES, trees, "xgboost"),
        )
    }
    precision = figure_text("average_precision", figures["pair"]["average_precision"])
    tags |= {**versions, "average_precision": precision}
    return registry.register(RELEASE, pair, runs["pair"].id, tags, describe_version(figures["pair"], about))


def _name_runs(runs: TrainingRuns, number: str, card: str) -> None:
    """Name the runs after the release, and link the release's with those of its models, both ways."""
    links = ", ".join(f"[{model}]({runs[model].link})" for model in ("neural_net", "xgboost"))
    release = f"[release {number}]({runs['pair'].link})"
    for model, run in runs.items():
        run.rename(f"release {number}{LABELS[model]}")
        note = f"Models: {links}\n\n{card}" if model == "pair" else f"{LABELS[model].strip()} of {release}."
        run.tags({"release": number, "mlflow.note.content": note})  # what the UI opens a run with
