"""What MLflow stores of a release: each model with its signature, and both as one pyfunc."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.data.simulate import simulate
from training.data.transactions import FEATURES
from training.registry.signatures import decision_signature, score_signature, tensor_signature

if TYPE_CHECKING:
    import xgboost
    from torch import nn

EXAMPLE_ROWS = 3
REFERENCE_ROWS = 64
PYFUNC_FILE = Path(__file__).parent / "pyfunc_model.py"
# The package that pyproject.toml installs: xgboost-cpu has no wheel for macOS.
XGBOOST = "xgboost" if sys.platform == "darwin" else "xgboost-cpu"


def reference_features() -> NDArray[np.float32]:
    """Return the features of the reference batch, invented: a registry is no place for card data."""
    return np.array(simulate(REFERENCE_ROWS, 0)[list(FEATURES)], np.float32)


def log_network(run_id: str, network: nn.Module, files: Path) -> str:
    """Store the network with its two ONNX files; return its URI."""
    import mlflow

    with mlflow.start_run(run_id=run_id):
        stored = mlflow.pytorch.log_model(
            network,
            name="model",
            signature=tensor_signature(),
            input_example=reference_features()[:EXAMPLE_ROWS],
            extra_files=[str(files / "model.onnx"), str(files / "attribution.onnx")],
            pip_requirements=_pinned("torch", "numpy"),
            metadata={"feature_names": list(FEATURES)},
        )
    return str(stored.model_uri)


def log_trees(run_id: str, booster: xgboost.Booster) -> str:
    """Store the trees; return their URI."""
    import mlflow

    with mlflow.start_run(run_id=run_id):
        stored = mlflow.xgboost.log_model(
            booster,
            name="model",
            signature=score_signature(),
            input_example=_example(),
            model_format="ubj",
            pip_requirements=_pinned(XGBOOST, "numpy", "pandas"),
        )
    return str(stored.model_uri)


def log_pair(run_id: str, files: Path) -> str:
    """Store all files of a release as one pyfunc; return its URI."""
    import mlflow

    carried = {path.stem: str(path) for path in sorted(files.iterdir()) if path.stem != "model"}
    with mlflow.start_run(run_id=run_id):
        stored = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(PYFUNC_FILE),
            artifacts=carried | {"network": str(files / "model.onnx"), "trees": str(files / "model.ubj")},
            signature=decision_signature(),
            input_example=_example(),
            pip_requirements=_pinned("numpy", "pandas", "onnxruntime", XGBOOST),
        )
    return str(stored.model_uri)


def _example() -> object:
    import pandas as pd

    return pd.DataFrame(reference_features()[:EXAMPLE_ROWS].astype(np.float64), columns=list(FEATURES))


def _pinned(*packages: str) -> list[str]:
    return [f"{name}=={version(name).split('+')[0]}" for name in packages]


@contextmanager
def quiet() -> Iterator[None]:
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
