"""The same transaction gets the same score, and reasons that explain it, wherever a trained model runs."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bentos.classify.explainer import complete
from bentos.loaded_models import load_network, load_trees
from bentos.policy import logit
from bentos.releases.choice import choose
from bentos.releases.store import ModelStore
from tests.serving_fixtures import FEATURES, encoded

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


@pytest.mark.parametrize(("load", "off_by"), [(load_network, 0.25), (load_trees, 1e-4)])
def test_base_value_and_contributions_sum_to_the_log_odds(
    load: Any, off_by: float, release_home: Path, transactions: list[dict[str, Any]]
) -> None:
    """Each trained model has one base value; sums of a few steps are close, what is answered is exact."""
    store = ModelStore(release_home / "bentoml" / "models")
    model = load(store, choose(store, None).version, threads=1)
    rows = np.array([[row[name] for name in FEATURES] for row in transactions], np.float32)
    log_odds = logit(model.score(rows).astype(np.float64), 1e-7)  # [n]
    values = model.contributions(rows).astype(np.float64)  # [n, 31]
    assert np.ptp(values[:, -1]) < 1e-5, "the base value is the model's, not the row's"
    assert np.median(np.abs(values.sum(axis=1) - log_odds)) < off_by
    answered = complete(values, log_odds)
    np.testing.assert_allclose(answered.sum(axis=1), log_odds, atol=1e-4)
    np.testing.assert_array_equal(answered[:, -1], values[:, -1])
