"""A stored model, loaded, warm and checked: the network in onnxruntime, the trees in XGBoost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np
from typing_extensions import override

from bentos.releases.reference import check_reference
from bentos.releases.release import FEATURE_NAMES
from bentos.releases.store import NEURAL_NET, XGBOOST, ModelStore
from bentos.rows import Rows

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

WARM_UP_ROWS = (1, 2, 64, 1024)
# Keeps the log-odds of a certain score finite.
EPSILON = 1e-7


class LoadedModel(Protocol):
    """One model of one release, ready to answer."""

    def score(self, features: Rows) -> Rows:
        """Return one score in [0, 1] per row of raw features."""

    def contributions(self, features: Rows) -> Rows:
        """Return float32 [n, 31]: the log-odds that each feature added to the score, then the base value."""


class NetworkModel(LoadedModel):
    """The network and its attribution, two ONNX graphs."""

    def __init__(self, score: InferenceSession, attribution: InferenceSession) -> None:
        self._score, self._attribution = score, attribution

    @override
    def score(self, features: Rows) -> Rows:
        scores: Rows = self._score.run(None, {"features": features})[0]
        return scores

    @override
    def contributions(self, features: Rows) -> Rows:
        contributions: Rows = self._attribution.run(None, {"features": features})[0]
        if contributions.shape[1] > len(FEATURE_NAMES):
            return contributions
        # Releases before the base value was exported: what the contributions leave of the log-odds.
        scores = np.clip(self.score(features).astype(np.float64), EPSILON, 1 - EPSILON)
        base = np.log(scores / (1 - scores)) - contributions.sum(axis=1)
        return np.column_stack([contributions, base]).astype(np.float32)


class TreesModel(LoadedModel):
    """The boosted trees, in XGBoost's own format."""

    def __init__(self, path: str, threads: int) -> None:
        with _unneeded_packages_hidden():
            import xgboost  # only the trees' process pays for it

        self._matrix = xgboost.DMatrix
        self._booster = xgboost.Booster(model_file=path)
        self._booster.set_param({"nthread": threads})

    @override
    def score(self, features: Rows) -> Rows:
        scores: Rows = self._booster.inplace_predict(features, validate_features=False)
        return scores

    @override
    def contributions(self, features: Rows) -> Rows:
        matrix = self._matrix(features, feature_names=self._booster.feature_names)
        contributions: Rows = self._booster.predict(matrix, pred_contribs=True)
        return contributions


def load_network(store: ModelStore, version: str, *, threads: int) -> LoadedModel:
    """Return the network of a stored release; raises ReleaseError if it is not the one that was trained."""
    folder = store.model_folder(NEURAL_NET, version)
    files = folder / "extra_files"
    model = NetworkModel(
        _open_session(str(files / "model.onnx"), threads),
        _open_session(str(files / "attribution.onnx"), threads),
    )
    check_reference(folder, "neural_net", model.score)
    _warm_up(model)
    return model


def load_trees(store: ModelStore, version: str, *, threads: int) -> LoadedModel:
    """Return the trees of a stored release; raises ReleaseError if they are not those that were trained."""
    folder = store.model_folder(XGBOOST, version)
    model = TreesModel(str(folder / "model.ubj"), threads)
    check_reference(folder, "xgboost", model.score)
    _warm_up(model)
    return model


def _open_session(path: str, threads: int) -> InferenceSession:
    import onnxruntime  # only the network's process pays for it

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread pool would take the core from the gateway.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _warm_up(model: LoadedModel) -> None:
    """Run the model at several sizes, so that the first request finds allocations made."""
    for rows in WARM_UP_ROWS:
        model.score(np.zeros((rows, len(FEATURE_NAMES)), np.float32))
    model.contributions(np.zeros((1, len(FEATURE_NAMES)), np.float32))


@contextmanager
def _unneeded_packages_hidden() -> Iterator[None]:
    """Keep XGBoost from importing scikit-learn and pandas where installed: 0.3 s, not 1.5 s."""
    hidden = {name: sys.modules.get(name) for name in ("sklearn", "pandas")}
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None says absent
    try:
        yield
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
