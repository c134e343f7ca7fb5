"""MLflow signatures of what a release registers: the features by name and in order, and what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.data.transactions import FEATURES

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec


def tensor_signature() -> ModelSignature:
    """Return the signature of the exported network: MLflow lets it have no named columns, only a tensor."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    single = np.dtype(np.float32)
    return ModelSignature(
        Schema([TensorSpec(single, (-1, len(FEATURES)))]), Schema([TensorSpec(single, (-1,))])
    )


def score_signature() -> ModelSignature:
    """Return the signature of a model that takes the 30 features by name and gives a score."""
    from mlflow.types import ColSpec, DataType

    return _named([ColSpec(DataType.float, "score")])


def decision_signature() -> ModelSignature:
    """Return the signature of the pair: features by name to scores, probability and decision."""
    from mlflow.types import ColSpec, DataType

    return _named(
        [
            ColSpec(DataType.float, "neural_net_score"),
            ColSpec(DataType.float, "xgboost_score"),
            ColSpec(DataType.double, "fraud_probability"),
            ColSpec(DataType.string, "decision"),
            ColSpec(DataType.boolean, "is_fraud"),
            ColSpec(DataType.string, "raised_by"),
        ]
    )


def _named(outputs: list[ColSpec]) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema
    from mlflow.types.schema import AnyType, ColSpec, DataType

    # MLflow converts no int64 to float64, and whole seconds and amounts often come as integers.
    anything = AnyType()  # type: ignore[no-untyped-call]
    kinds = {"Time": anything, "Amount": anything}
    inputs = [
        ColSpec(kinds.get(name, DataType.double), name, required=name not in kinds) for name in FEATURES
    ]
    return ModelSignature(Schema([*inputs]), Schema([*outputs]))
