"""Registered release -> BentoML model store: both models, or nothing that is ever served."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.errors import StoreError
from training.registry import NETWORK, TREES, Registry, Release

if TYPE_CHECKING:
    import bentoml

STORE_NETWORK, STORE_TREES = "fraud_neural_net", "fraud_xgboost"
# Scores of a stored model against the trained one's: float32 rounding, no more.
PARITY = 1e-6


@dataclass(frozen=True)
class Pair:
    """Two models of the store that were imported as one release."""

    version: str
    release: str
    fingerprint: str


def active_pair() -> Pair | None:
    """Return the complete pair whose trees were imported last, which a service loads; None without one."""
    networks = {str(model.tag.version): model for model in _models(STORE_NETWORK)}
    trees = sorted(_models(STORE_TREES), key=lambda model: model.info.creation_time, reverse=True)
    for model in trees:
        partner = networks.get(str(model.tag.version))
        if partner is not None and _identity(partner) == _identity(model):
            return Pair(str(model.tag.version), *_identity(model))
    return None


def import_release(registry: Registry, release: Release) -> tuple[Pair, bool]:
    """Make `release` the active pair of the store; return it and whether anything was imported.

    Raises
    ------
    StoreError
        If a stored model does not score the reference batch as the trained one did; nothing stays behind.
    """
    active = active_pair()
    if active is not None and (active.release, active.fingerprint) == (release.number, release.fingerprint):
        return active, False
    remove_halves()
    with tempfile.TemporaryDirectory() as temporary:
        return _import_pair(registry, release, registry.fetch(release, Path(temporary))), True


def _import_pair(registry: Registry, release: Release, folder: Path) -> Pair:
    document = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    version = _free_version(release.number)
    try:
        # The trees come last: their presence is what makes the pair count.
        _import(STORE_NETWORK, NETWORK, release.network_version, version, release, document, registry)
        _check_network(version, folder)
        _import(STORE_TREES, TREES, release.trees_version, version, release, document, registry)
        _check_trees(version, folder)
    except BaseException:
        _delete(STORE_TREES, version)
        _delete(STORE_NETWORK, version)
        raise
    return Pair(version, release.number, release.fingerprint)


def remove_halves() -> list[str]:
    """Delete store versions that an interrupted import left without their partner; return their tags."""
    versions = {
        name: {str(model.tag.version) for model in _models(name)} for name in (STORE_NETWORK, STORE_TREES)
    }
    halves = [
        (name, version)
        for name, other in ((STORE_NETWORK, STORE_TREES), (STORE_TREES, STORE_NETWORK))
        for version in versions[name] - versions[other]
    ]
    for name, version in halves:
        _delete(name, version)
    return [f"{name}:{version}" for name, version in halves]


def _import(
    name: str,
    registered: str,
    number: str,
    version: str,
    release: Release,
    document: dict[str, Any],
    registry: Registry,
) -> None:
    import bentoml

    logging.getLogger("bentoml").setLevel(logging.ERROR)
    model_version = registry.client.get_model_version(registered, number)
    run_id = str(model_version.run_id)
    bentoml.mlflow.import_model(
        f"{name}:{version}",
        f"models:/{registered}/{number}",
        labels={
            "release": release.number,
            "run_id": run_id,
            "version": number,
            "fingerprint": release.fingerprint,
        },
        metadata={
            **document,
            "release": release.number,
            "model": {"registered_model": registered, "version": number, "run_id": run_id},
        },
    )


def _check_network(version: str, folder: Path) -> None:
    import onnxruntime

    path = _path(STORE_NETWORK, version) / "extra_files" / "model.onnx"
    features, expected = reference_batch(folder, "neural_net")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    _compare(f"{STORE_NETWORK}:{version}", session.run(None, {"features": features})[0], expected)


def _check_trees(version: str, folder: Path) -> None:
    import xgboost

    booster = xgboost.Booster(model_file=_path(STORE_TREES, version) / "model.ubj")
    features, expected = reference_batch(folder, "xgboost")
    scores = booster.inplace_predict(features, validate_features=False)
    _compare(f"{STORE_TREES}:{version}", scores, expected)


def reference_batch(folder: Path, model: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the reference features [n, 30] of a release and what `model` scored them when trained [n]."""
    document = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    return np.array(document["features"], np.float32), np.array(document[model], np.float32)


def _compare(tag: str, scores: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    difference = float(np.abs(scores.astype(np.float64) - expected).max())
    if not difference <= PARITY:
        raise StoreError(
            f"{tag} scores the reference batch differently from the trained model (by {difference:.2g})"
        )


def _models(name: str) -> list[bentoml.Model]:
    import bentoml

    try:
        return list(bentoml.models.list(name))
    except bentoml.exceptions.NotFound:
        return []


def _identity(model: bentoml.Model) -> tuple[str, str]:
    labels = model.info.labels
    return labels.get("release", ""), labels.get("fingerprint", "")


def _path(name: str, version: str) -> Path:
    import bentoml

    try:
        return Path(bentoml.models.get(f"{name}:{version}").path_of("mlflow_model"))
    except bentoml.exceptions.NotFound as error:
        raise StoreError(
            f"{name}:{version} is not in the BentoML model store; run `python -m training import`"
        ) from error


def _free_version(release: str) -> str:
    taken = {str(model.tag.version) for name in (STORE_NETWORK, STORE_TREES) for model in _models(name)}
    number, version = 1, release
    while version in taken:
        number += 1
        version = f"{release}-{number}"
    return version


def _delete(name: str, version: str) -> None:
    import bentoml

    with contextlib.suppress(bentoml.exceptions.NotFound):
        bentoml.models.delete(f"{name}:{version}")
