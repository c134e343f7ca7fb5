"""One training in MLflow: a parent run, a child for each model, and the three stored models."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.errors import TrainingError
from training.evaluate import Figure
from training.registry import NETWORK, RELEASE, TREES, Registry, _explained

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

METRICS_PER_REQUEST = 900  # MLflow takes at most 1,000
DETECTOR_FILE = Path(__file__).parent / "detector.py"


class Run:
    """A run that is logged to in batches: a SQLite commit costs more than the values in it."""

    def __init__(self, registry: Registry, experiment: str, name: str, tags: dict[str, str]) -> None:
        self.client = registry.client
        self.tracking_uri = registry.tracking_uri
        with _explained(self.tracking_uri):
            experiment_id = _experiment_id(registry, experiment)
            self.id = str(self.client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record settings."""
        from mlflow.entities import Param

        with _explained(self.tracking_uri):
            self.client.log_batch(self.id, params=[Param(key, str(value)) for key, value in values.items()])

    def history(self, history: list[dict[str, float]]) -> None:
        """Record a curve for every figure, one step per entry."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._log(
            [Metric(key, value, now, step) for step, row in enumerate(history) for key, value in row.items()]
        )

    def figures(self, figures: Mapping[str, Figure], prefix: str = "test") -> None:
        """Record figures with the ends of their intervals."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = []
        for name, figure in figures.items():
            metrics.append(Metric(f"{prefix}_{name}", figure.value, now, 0))
            metrics.append(Metric(f"{prefix}_{name}_low", figure.low, now, 0))
            metrics.append(Metric(f"{prefix}_{name}_high", figure.high, now, 0))
        self._log(metrics)

    def _log(self, metrics: list[Any]) -> None:
        with _explained(self.tracking_uri):
            for start in range(0, len(metrics), METRICS_PER_REQUEST):
                self.client.log_batch(self.id, metrics=metrics[start : start + METRICS_PER_REQUEST])

    def values(self, values: Mapping[str, float]) -> None:
        """Record single numbers."""
        self.history([dict(values)])

    def document(self, value: Any, path: str) -> None:
        """Store a JSON document or text as an artefact."""
        text = value if isinstance(value, str) else json.dumps(value, indent=2)
        with _explained(self.tracking_uri):
            self.client.log_text(self.id, text, path)

    def end(self, status: str = "FINISHED") -> None:
        """Close the run."""
        with _explained(self.tracking_uri):
            self.client.set_terminated(self.id, status)


def _experiment_id(registry: Registry, name: str) -> str:
    found = registry.client.get_experiment_by_name(name)
    if found is None:
        return str(
            registry.client.create_experiment(
                name, artifact_location=_artifact_location(registry.tracking_uri, name)
            )
        )
    if found.lifecycle_stage != "active":
        raise TrainingError(
            f"the MLflow experiment {name} was deleted: restore it with `mlflow experiments restore`"
        )
    return str(found.experiment_id)


def _artifact_location(tracking_uri: str, experiment: str) -> str | None:
    """Keep artefacts beside a SQLite file; any other server decides for itself."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    folder = Path(tracking_uri.removeprefix("sqlite:///")).resolve().parent / "mlruns"
    return (folder / experiment).as_uri()


def signature(outputs: str) -> ModelSignature:
    """Return the signature of a model that takes the 30 features by name."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    from training.data import FEATURES

    if outputs == "tensor":
        # The exported network takes a tensor; MLflow refuses named columns for it. The order is in the release.
        return ModelSignature(
            Schema([TensorSpec(np.dtype(np.float32), (-1, len(FEATURES)))]),
            Schema([TensorSpec(np.dtype(np.float32), (-1,))]),
        )
    inputs = Schema([ColSpec(DataType.double, name) for name in FEATURES])
    if outputs == "score":
        return ModelSignature(inputs, Schema([ColSpec(DataType.float, "score")]))
    columns = [
        ColSpec(DataType.float, "neural_net_score"),
        ColSpec(DataType.float, "xgboost_score"),
        ColSpec(DataType.double, "fraud_probability"),
        ColSpec(DataType.string, "decision"),
    ]
    return ModelSignature(inputs, Schema(columns))


__all__ = ["NETWORK", "RELEASE", "TREES", "Run", "signature"]
