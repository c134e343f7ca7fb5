"""A fitted pair -> MLflow runs, registered models and a release."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.data import FEATURES, Split, Transactions
from training.evaluate import Figure
from training.export import export_onnx
from training.registry import NETWORK, RELEASE, TREES, Registry, Release
from training.release import build_document, describe_data
from training.settings import Settings
from training.simulate import simulate
from training.tracking import DETECTOR_FILE, Run, signature

if TYPE_CHECKING:
    from training.train import Fitted

REFERENCE_ROWS = 64
RUNTIME = ["numpy", "pandas", "onnxruntime", "xgboost-cpu"]


def publish(
    registry: Registry,
    fitted: Fitted,
    data: Transactions,
    split: Split,
    figures: Mapping[str, Mapping[str, Figure]],
    settings: Settings,
) -> Release:
    """Record one training and register it as a release; nothing is promoted."""
    about = describe_data(data, split)
    tags = _tags(about, settings)
    started = datetime.now(UTC)
    name = f"{data.name} {started:%Y-%m-%d %H:%M:%S}"
    parent = Run(registry, RELEASE, name, {**tags, "model": "pair"})
    try:
        children = {
            "neural_net": Run(
                registry,
                NETWORK,
                f"network, {name}",
                {**tags, "model": "neural_net", "mlflow.parentRunId": parent.id},
            ),
            "xgboost": Run(
                registry,
                TREES,
                f"XGBoost, {name}",
                {**tags, "model": "xgboost", "mlflow.parentRunId": parent.id},
            ),
        }
        parent.parameters(_flat(settings.model_dump()))
        parent.figures(figures["pair"])
        children["neural_net"].parameters(_flat(settings.network.model_dump()) | {"seed": settings.seed})
        children["xgboost"].parameters(_flat(settings.xgboost.model_dump()) | {"seed": settings.seed})
        children["neural_net"].history(fitted.network.history)
        children["xgboost"].history(fitted.trees.history)
        for model, run in children.items():
            run.figures(figures[model])
        document = build_document(
            thresholds=fitted.thresholds,
            calibration=fitted.calibration,
            data=about,
            figures=figures,
            run_id=parent.id,
            trained_at=started.isoformat(),
        )
        with tempfile.TemporaryDirectory() as folder:
            release = _register(registry, fitted, document, parent, children, Path(folder), tags)
        for run in (*children.values(), parent):
            run.end()
    except BaseException:
        for run in (parent,):
            run.end("FAILED")
        raise
    return release


def _register(
    registry: Registry,
    fitted: Fitted,
    document: dict[str, Any],
    parent: Run,
    children: dict[str, Run],
    folder: Path,
    tags: dict[str, str],
) -> Release:
    import mlflow

    reference = simulate(REFERENCE_ROWS, 0)[list(FEATURES)]
    example = reference.head(5)
    features = reference.to_numpy(np.float32)
    scores = fitted.scores(features)
    files = _write_files(fitted, document, features, scores, folder)
    with mlflow.start_run(run_id=children["neural_net"].id):
        network = mlflow.pytorch.log_model(
            fitted.network.module,
            name="model",
            signature=signature("tensor"),
            input_example=features[:5],
            extra_files=[str(files["network"]), str(files["attribution"])],
            pip_requirements=["torch==2.13.0", "numpy", "onnxruntime"],
        )
    with mlflow.start_run(run_id=children["xgboost"].id):
        trees = mlflow.xgboost.log_model(
            fitted.trees.booster,
            name="model",
            signature=signature("score"),
            model_format="ubj",
            pip_requirements=["xgboost-cpu", "numpy", "pandas"],
        )
    with mlflow.start_run(run_id=parent.id):
        pair = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(DETECTOR_FILE),
            artifacts={key: str(path) for key, path in files.items()},
            signature=signature("pair"),
            pip_requirements=RUNTIME,
        )
    versions = {
        name: mlflow.register_model(info.model_uri, name, tags=tags)
        for name, info in ((NETWORK, network), (TREES, trees))
    }
    detector = mlflow.register_model(
        pair.model_uri,
        RELEASE,
        tags={
            **tags,
            "network_version": str(versions[NETWORK].version),
            "xgboost_version": str(versions[TREES].version),
        },
    )
    return registry.release(str(detector.version))


def _write_files(
    fitted: Fitted,
    document: dict[str, Any],
    features: NDArray[np.float32],
    scores: tuple[NDArray[np.float32], NDArray[np.float32]],
    folder: Path,
) -> dict[str, Path]:
    network, attribution = export_onnx(fitted.network.module, folder)
    files = {
        "network": network,
        "attribution": attribution,
        "trees": folder / "model.ubj",
        "release": folder / "release.json",
        "reference": folder / "reference.json",
    }
    fitted.trees.booster.save_model(files["trees"])
    files["release"].write_text(json.dumps(document, indent=2), encoding="utf-8")
    batch = {"features": features.tolist(), "neural_net": scores[0].tolist(), "xgboost": scores[1].tolist()}
    files["reference"].write_text(json.dumps(batch), encoding="utf-8")
    return files


def _tags(about: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    return {
        "data": str(about["name"]),
        "fingerprint": str(about["fingerprint"]),
        "protocol": str(about["protocol"]),
        "seed": str(settings.seed),
        "python": platform.python_version(),
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
