"""What lies in the BentoML model store: pairs of models, and what interrupted commands left there."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import StoreError
from training.model_store.store_record import Pair
from training.model_store.store_retention import unused

if TYPE_CHECKING:
    import bentoml

STORE_NETWORK, STORE_TREES = "fraud_neural_net", "fraud_xgboost"


def store_folder() -> Path:
    """Return the folder of the models: all of the store that containers share."""
    return Path(os.environ.get("BENTOML_HOME", Path.home() / "bentoml")) / "models"


def complete_pairs() -> list[Pair]:
    """Return the pairs whose two models are in the store under one version, newest first."""
    networks = {str(model.tag.version): model for model in _models(STORE_NETWORK)}
    trees = sorted(_models(STORE_TREES), key=lambda model: model.info.creation_time, reverse=True)
    return [
        Pair(version, *_identity(model))
        for model in trees
        if (version := str(model.tag.version)) in networks
        and _identity(networks[version]) == _identity(model)
    ]


def count_versions() -> int:
    """Return how many versions of the trees are in the store, without reading any."""
    return len(_folders(STORE_TREES))


def model_folder(name: str, version: str) -> Path:
    """Return the folder of a stored model's files; raises StoreError when there is none."""
    import bentoml

    try:
        return Path(bentoml.models.get(f"{name}:{version}").path_of("mlflow_model"))
    except bentoml.exceptions.BentoMLException as error:
        raise StoreError(
            f"{name}:{version} is not in the BentoML model store; run `python -m training import`"
        ) from error


def free_version(release: str) -> str:
    """Return a store version for a release that no folder has."""
    taken = {folder.name for name in (STORE_NETWORK, STORE_TREES) for folder in _folders(name)}
    number, version = 1, release
    while version in taken:
        number += 1
        version = f"{release}-{number}"
    return version


def delete_pair(version: str) -> None:
    """Delete both models of a version; without its trees, the first to go, a pair counts no longer."""
    for name in (STORE_TREES, STORE_NETWORK):
        _delete(name, version)


def remove_halves() -> list[str]:
    """Delete what an interrupted import left: broken models and those without their partner.

    BentoML copies a model into the store file by file, so a killed import can leave a folder that every
    listing of the store stumbles over.

    Returns
    -------
    list of str
        Their tags.
    """
    whole = {
        name: {str(model.tag.version) for model in _models(name)} for name in (STORE_NETWORK, STORE_TREES)
    }
    both = whole[STORE_NETWORK] & whole[STORE_TREES]
    halves = [
        folder
        for name in (STORE_NETWORK, STORE_TREES)
        for folder in _folders(name)
        if folder.name not in both
    ]
    removed = []
    for folder in halves:
        with unused(folder) as is_unused:
            if is_unused:
                shutil.rmtree(folder)
                removed.append(f"{folder.parent.name}:{folder.name}")
    return removed


def _folders(name: str) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(folder for folder in (store_folder() / name).iterdir() if folder.is_dir())
    return []


def _models(name: str) -> list[bentoml.Model]:
    """Return the models that can be read; BentoML's own listing fails at the first that cannot."""
    import bentoml

    models = []
    for folder in _folders(name):
        with contextlib.suppress(Exception):  # a torn model.yaml fails in as many ways as it can be torn
            models.append(bentoml.models.get(f"{name}:{folder.name}"))
    return models


def _identity(model: bentoml.Model) -> tuple[str, str]:
    labels = model.info.labels
    return labels.get("release", ""), labels.get("fingerprint", "")


def _delete(name: str, version: str) -> None:
    import bentoml

    with contextlib.suppress(bentoml.exceptions.NotFound):
        bentoml.models.delete(f"{name}:{version}")
