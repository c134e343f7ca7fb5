"""Which pair of models is served, and what travels with it. Reads the BentoML store only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import NotFound

from bentos.errors import ReleaseError
from bentos.policy import Calibration, Thresholds

NEURAL_NET = "fraud_neural_net"
XGBOOST = "fraud_xgboost"
# The feature order every artefact of the project shares.
FEATURE_NAMES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
# Set by the first process for those it starts, so that a runner that dies after another promotion comes
# back with the pair it left: never a mix.
PAIR_VARIABLE = "FRAUD_DETECTION_PAIR"


@dataclass(frozen=True)
class Release:
    """Both models, calibration and thresholds, promoted together."""

    number: str
    neural_net_tag: str
    xgboost_tag: str
    fingerprint: str
    thresholds: Thresholds
    calibration: Calibration
    metadata: Mapping[str, Any]
    registered: Mapping[str, Mapping[str, str]]

    @property
    def network_file(self) -> Path:
        """ONNX file: raw features to score."""
        return _folder(self.neural_net_tag) / "extra_files" / "model.onnx"

    @property
    def attribution_file(self) -> Path:
        """ONNX file: raw features to signed contributions, log-odds of the network's score."""
        return _folder(self.neural_net_tag) / "extra_files" / "attribution.onnx"

    @property
    def booster_file(self) -> Path:
        """XGBoost's own format."""
        return _folder(self.xgboost_tag) / "model.ubj"


def find_release(pinned: str | None = None) -> Release:
    """Return the active release of the store, or the one `pinned`.

    Parameters
    ----------
    pinned : str, optional
        A release number; without it, the newest complete pair.

    Raises
    ------
    ReleaseError
        If the store holds no complete pair, or not the one asked for.
    """
    inherited = os.environ.get(PAIR_VARIABLE)
    if inherited:
        return _read(*inherited.split(","))
    networks = {_identity(model): model for model in _stored(NEURAL_NET)}
    pairs = [
        (networks[_identity(trees)], trees)
        for trees in _stored(XGBOOST)
        if _identity(trees) in networks and pinned in (None, _identity(trees)[0])
    ]
    if not pairs:
        raise ReleaseError(_nothing_to_serve(pinned))
    network, trees = max(pairs, key=lambda pair: pair[1].info.creation_time)
    return _read(str(network.tag), str(trees.tag))


def hand_down(release: Release) -> None:
    """Make every process started from now on serve this very pair."""
    os.environ[PAIR_VARIABLE] = f"{release.neural_net_tag},{release.xgboost_tag}"


def describe(release: Release) -> dict[str, Any]:
    """Return what ``GET /info`` answers."""
    document = release.metadata
    return {
        "release": release.number,
        "models": {"neural_net": release.neural_net_tag, "xgboost": release.xgboost_tag},
        "registered_models": release.registered,
        "feature_names": list(FEATURE_NAMES),
        "thresholds": document["thresholds"],
        "calibration": document["calibration"],
        "training_run_id": document["training_run_id"],
        "trained_at": document["trained_at"],
        "data": document["data"],
        "metrics": document["metrics"],
    }


def _stored(name: str) -> list[bentoml.Model]:
    try:
        return bentoml.models.list(name)
    except NotFound:
        return []


def _identity(model: bentoml.Model) -> tuple[str, str]:
    labels = model.info.labels
    return labels.get("release", ""), labels.get("fingerprint", "")


def _nothing_to_serve(pinned: str | None) -> str:
    wanted = f"release {pinned}" if pinned else "a complete release"
    return f"The BentoML model store does not hold {wanted}. Train one with `python -m training train`."


def _read(neural_net_tag: str, xgboost_tag: str) -> Release:
    network, trees = bentoml.models.get(neural_net_tag), bentoml.models.get(xgboost_tag)
    document: Mapping[str, Any] = network.info.metadata
    if tuple(document["feature_names"]) != FEATURE_NAMES:
        raise ReleaseError(f"{neural_net_tag} was trained on other features than this service takes.")
    number, fingerprint = _identity(network)
    return Release(
        number=number,
        neural_net_tag=neural_net_tag,
        xgboost_tag=xgboost_tag,
        fingerprint=fingerprint,
        thresholds=Thresholds(**document["thresholds"]),
        calibration=_calibration(document["calibration"]),
        metadata=document,
        registered=_registered(network, trees),
    )


def _calibration(document: Mapping[str, Any]) -> Calibration:
    if document["method"] != "logistic":
        raise ReleaseError(f"This service does not know the calibration method {document['method']!r}.")
    return Calibration(
        intercept=document["intercept"],
        epsilon=document["epsilon"],
        **document["coefficients"],
    )


def _registered(*models: bentoml.Model) -> dict[str, Mapping[str, str]]:
    documents: dict[str, Mapping[str, Any]] = {model.tag.name: model.info.metadata for model in models}
    return {name: document.get("model", {}) for name, document in documents.items()}


def _folder(tag: str) -> Path:
    return Path(bentoml.models.get(tag).path_of("mlflow_model"))
