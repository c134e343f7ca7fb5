"""The same transaction gets the same score in the trained torch module, its store and the service."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serving_fixtures import encoded

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


def test_served_scores_are_the_trained_models_own(
    served_bento: str, release_home: Path, transactions: list[dict[str, Any]]
) -> None:
    import torch
    import xgboost

    answers = httpx.post(
        f"{served_bento}/classify",
        content=encoded(transactions),
        headers={"content-type": "application/json"},
        timeout=30,
    ).json()
    models = httpx.get(f"{served_bento}/info", timeout=10).json()["models"]
    network, trees = (
        release_home / "bentoml" / "models" / tag.replace(":", "/") / "mlflow_model"
        for tag in models.values()
    )
    names = [name for name in transactions[0] if name != "transaction_id"]
    rows = np.array([[row[name] for name in names] for row in transactions], np.float32)

    import mlflow.pytorch

    module = mlflow.pytorch.load_model(str(network))
    with torch.no_grad():
        expected = np.ravel(module(torch.from_numpy(rows)).numpy())  # [n]
    if expected.min() < 0 or expected.max() > 1:
        expected = 1 / (1 + np.exp(-expected.astype(np.float64)))  # a module that answers log-odds
    served = np.array([answer["scores"]["neural_net"] for answer in answers])
    np.testing.assert_allclose(served, expected, atol=1e-6)

    booster = xgboost.Booster(model_file=str(trees / "model.ubj"))
    expected = booster.inplace_predict(rows, validate_features=False)
    served = np.array([answer["scores"]["xgboost"] for answer in answers])
    np.testing.assert_allclose(served, expected, atol=1e-6)
