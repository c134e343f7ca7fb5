"""The same two models, composed as BentoML's documentation does it, for `benchmarks.serving` to measure.

Two services with a batchable method each, one that depends on both, pydantic and numpy types, and every
setting at its default. Served by ``bentoml serve benchmarks.serving_plain:PlainFraudDetection``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import bentoml
import numpy as np
from pydantic import BaseModel, create_model

from bentos.compat.model_store import models_folder
from bentos.loaded_models import load_network, load_trees
from bentos.releases.choice import choose
from bentos.releases.release import FEATURE_NAMES
from bentos.releases.store import ModelStore

Transaction: Any = create_model("Transaction", **dict.fromkeys(FEATURE_NAMES, (float, ...)))


class Scores(BaseModel):
    """Each model's own output."""

    neural_net: float
    xgboost: float


def _active() -> tuple[ModelStore, str]:
    store = ModelStore(models_folder())
    return store, choose(store, None).version


@bentoml.service
class PlainNetwork:
    """The network."""

    def __init__(self) -> None:
        self._model = load_network(*_active(), threads=1)

    @bentoml.api(batchable=True)
    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return one score per row."""
        return self._model.score(rows.astype(np.float32))


@bentoml.service
class PlainTrees:
    """The boosted trees."""

    def __init__(self) -> None:
        self._model = load_trees(*_active(), threads=1)

    @bentoml.api(batchable=True)
    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return one score per row."""
        return self._model.score(rows.astype(np.float32))


@bentoml.service
class PlainFraudDetection:
    """Both."""

    neural_net = bentoml.depends(PlainNetwork)
    xgboost = bentoml.depends(PlainTrees)

    @bentoml.api
    async def classify(self, transaction: Transaction, /) -> Scores:
        """Score one transaction."""
        rows = np.array([[getattr(transaction, name) for name in FEATURE_NAMES]], np.float32)
        network, trees = await asyncio.gather(
            self.neural_net.to_async.score(rows), self.xgboost.to_async.score(rows)
        )
        return Scores(neural_net=float(network[0]), xgboost=float(trees[0]))
