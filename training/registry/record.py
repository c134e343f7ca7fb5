"""A training -> MLflow: a parent run with a child for each model, stored models, a registered release."""

from __future__ import annotations

import json
import logging
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.simulate import simulate
from training.data.split import split_key
from training.data.transactions import FEATURES
from training.models.onnx_export import export_onnx
from training.models.training import TrainingResult
from training.models.validation import History
from training.registry.promotion_check import FITTED_KEYS, fitted_keys
from training.registry.recipe import COMMAND_SETTINGS, recipe_key
from training.registry.release_document import build_document, describe_parts
from training.registry.releases import NETWORK, RELEASE, TREES, Registry, Release, translate_registry_errors
from training.registry.runs import FRAUD_DETECTOR_FILE, Run
from training.registry.signatures import decision_signature, score_signature, tensor_signature
from training.reporting.model_card import figure_text, model_card
from training.reporting.training_plots import draw_network, draw_pair, draw_trees
from training.scoring.latency import measure_latency
from training.scoring.scorer import ReleaseScorer
from training.settings.load import Settings

# What distinguishes the runs of one training by name.
LABELS = {"neural_net": " network", "xgboost": " XGBoost"}
# The address of the registry may carry credentials, and everybody who reads runs would see them.
NOT_RECORDED = {"tracking_uri"} | COMMAND_SETTINGS
DESCRIBED = {
    "average_precision": "AP",
    "recall": "recall",
    "precision": "precision",
    "cost_saved": "amount saved",
}
REFERENCE_ROWS = 64
EXAMPLE_ROWS = 3
# The package that pyproject.toml installs: xgboost-cpu has no wheel for macOS.
XGBOOST = "xgboost" if sys.platform == "darwin" else "xgboost-cpu"
PINNED = {
    "torch": "torch",
    "numpy": "numpy",
    "pandas": "pandas",
    "onnxruntime": "onnxruntime",
    "xgboost": XGBOOST,
}


def record_release(
    registry: Registry, training: TrainingResult, source: str
) -> tuple[Release, dict[str, dict[str, float]]]:
    """Record a training and register it as a release; promote nothing.

    Returns
    -------
    tuple of Release and dict
        The release and the latency of each stored model in milliseconds.
    """
    started = datetime.now(UTC)
    with _runs(registry, training, started) as runs, tempfile.TemporaryDirectory() as folder:
        document = build_document(
            training, run_id=runs["pair"].id, trained_at=started.isoformat(timespec="seconds")
        )
        files = Path(folder) / "files"
        files.mkdir()
        features = _write_files(training, document, files)
        fitted_keys(training).save(files / FITTED_KEYS)
        latency = measure_latency(ReleaseScorer(files, threads=1), features)
        _record(runs, training, document["data"], latency, source)
        _draw(runs, training, Path(folder) / "plots")
        parts = describe_parts(training.data, training.split)
        card = model_card(document, training.figures, training.settings, parts, latency)
        runs["pair"].text(card, "model_card.md")
        runs["pair"].tags({"mlflow.note.content": card})  # what the UI opens a run with
        runs["pair"].text(training.settings.model_dump_json(indent=2, exclude=NOT_RECORDED), "settings.json")
        with translate_registry_errors(registry.tracking_uri), _quiet():
            number = _register(registry, runs, training, files, features)
        for model, run in runs.items():
            run.rename(f"release {number}" + LABELS.get(model, ""))
            run.tags({"release": number})
    return registry.release(number), latency


@contextmanager
def _runs(registry: Registry, training: TrainingResult, started: datetime) -> Iterator[dict[str, Run]]:
    """Open the parent run and a child for each model; close them by how the block ended."""
    tags = {
        **_tags(training),
        "mlflow.source.name": "python -m training train",
        "mlflow.source.type": "LOCAL",
    }
    name = f"{started:%Y-%m-%d %H:%M:%S}"
    pair = Run(registry, RELEASE, name, {**tags, "model": "both"})
    runs = {"pair": pair}
    try:
        for model, experiment in (("neural_net", NETWORK), ("xgboost", TREES)):
            label = LABELS[model].strip()
            child = {**tags, "model": label, "mlflow.parentRunId": pair.id}
            runs[model] = Run(registry, experiment, f"{name} {label}", child)
        yield runs
    except BaseException as error:
        for run in runs.values():
            run.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    for run in runs.values():
        run.end()


def _tags(training: TrainingResult) -> dict[str, str]:
    settings = training.settings
    return {
        "data": training.data.name,
        "fingerprint": training.data.fingerprint,
        "protocol": settings.protocol,
        "seed": str(settings.seed),
        "split": split_key(settings),
        "recipe": recipe_key(settings),
    }


def _described(training: TrainingResult, model: str) -> str:
    """Return what the registry's list shows beside a version, of which it cuts all but the beginning."""
    figures = training.figures[model]
    shown = (f"{name} {figure_text(metric, figures[metric])}" for metric, name in DESCRIBED.items())
    return f"{', '.join(shown)}: test part of {training.data.name}, {training.split.protocol} split"


def _record(
    runs: Mapping[str, Run],
    training: TrainingResult,
    about: Mapping[str, Any],
    latency: Mapping[str, Mapping[str, float]],
    source: str,
) -> None:
    _record_settings(runs, training.settings)
    profile = {**about, **describe_parts(training.data, training.split)}
    for model, run in runs.items():
        run.dataset(training.data.name, training.data.fingerprint, source, profile)
        run.figures(training.figures[model])
    for model, label in LABELS.items():  # beside its own figures, the release shows those of its models
        values = {name: figure.value for name, figure in training.figures[model].items()}
        runs["pair"].history([{f"test_{label.strip()}/{name}": value for name, value in values.items()}])
    fitted, limits = training.fitted, asdict(training.fitted.rule.thresholds)
    for model, part, kept in (
        ("neural_net", fitted.network, fitted.network.best_epoch),
        ("xgboost", fitted.trees, fitted.trees.best_tree),
    ):
        runs[model].history(_with_learning_rate(part.history, training.settings))
        fit = {"fit_seconds": part.seconds, "fit_rows": part.rows, "fit_steps_kept": kept + 1}
        runs[model].history([{**fit, **latency[model], "threshold": limits[model]}])


def _with_learning_rate(history: History, settings: Settings) -> History:
    """Return the curves with the step size of each round, which stays the same where none is recorded."""
    return [{"train_learning_rate": settings.xgboost.learning_rate, **row} for row in history]


def _record_settings(runs: Mapping[str, Run], settings: Settings) -> None:
    split = _flat(settings.split.model_dump(), "split.")
    shared = {"seed": settings.seed, "protocol": settings.protocol, "refit": settings.refit, **split}
    runs["pair"].parameters(_flat(settings.model_dump(exclude=NOT_RECORDED)) | _environment())
    runs["neural_net"].parameters(shared | _flat(settings.network.model_dump()))
    runs["xgboost"].parameters(shared | _flat(settings.xgboost.model_dump()))


def _draw(runs: Mapping[str, Run], training: TrainingResult, folder: Path) -> None:
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


def _write_files(training: TrainingResult, document: Mapping[str, Any], folder: Path) -> NDArray[np.float32]:
    """Write what the release carries; return the features of its reference batch.

    The batch is invented: a registry and a model store are no place for card data.
    """
    features = np.array(simulate(REFERENCE_ROWS, 0)[list(FEATURES)], np.float32)
    scores = training.fitted.scores(features)
    export_onnx(training.fitted.network.module, folder)
    training.fitted.trees.booster.save_model(folder / "model.ubj")
    (folder / "release.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
    batch = {"features": features.tolist(), "neural_net": scores[0].tolist(), "xgboost": scores[1].tolist()}
    (folder / "reference.json").write_text(json.dumps(batch), encoding="utf-8")
    return features


def _register(
    registry: Registry,
    runs: Mapping[str, Run],
    training: TrainingResult,
    files: Path,
    features: NDArray[np.float32],
) -> str:
    """Store and register the two models, then the pair, whose version number becomes the release's."""
    import mlflow
    import pandas as pd

    example = features[:EXAMPLE_ROWS]
    named = pd.DataFrame(example.astype(np.float64), columns=list(FEATURES))
    with mlflow.start_run(run_id=runs["neural_net"].id):
        network = mlflow.pytorch.log_model(
            training.fitted.network.module,
            name="model",
            signature=tensor_signature(),
            input_example=example,
            extra_files=[str(files / "model.onnx"), str(files / "attribution.onnx")],
            pip_requirements=_pinned("torch", "numpy"),
            metadata={"feature_names": list(FEATURES)},
        )
    with mlflow.start_run(run_id=runs["xgboost"].id):
        trees = mlflow.xgboost.log_model(
            training.fitted.trees.booster,
            name="model",
            signature=score_signature(),
            input_example=named,
            model_format="ubj",
            pip_requirements=_pinned("xgboost", "numpy", "pandas"),
        )
    with mlflow.start_run(run_id=runs["pair"].id):
        pair = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(FRAUD_DETECTOR_FILE),
            artifacts={path.stem: str(path) for path in sorted(files.iterdir()) if path.stem != "model"}
            | {"network": str(files / "model.onnx"), "trees": str(files / "model.ubj")},
            signature=decision_signature(),
            input_example=named,
            pip_requirements=_pinned("numpy", "pandas", "onnxruntime", "xgboost"),
        )
    tags, figures = _tags(training), training.figures["pair"]
    versions = {
        tag: registry.register(name, stored.model_uri, runs[model].id, tags, _described(training, model))
        for tag, name, stored, model in (
            ("network_version", NETWORK, network, "neural_net"),
            ("xgboost_version", TREES, trees, "xgboost"),
        )
    }
    tags |= {**versions, "average_precision": figure_text("average_precision", figures["average_precision"])}
    return registry.register(RELEASE, pair.model_uri, runs["pair"].id, tags, _described(training, "pair"))


def _pinned(*modules: str) -> list[str]:
    return [f"{PINNED[name]}=={version(PINNED[name]).split('+')[0]}" for name in modules]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what MLflow says about choices that are made on purpose."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "mlflow.tracking", "mlflow.models")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
