"""What lies in the BentoML model store: pairs of models, and what interrupted commands left there.

Reads the files themselves: importing BentoML and parsing every model with the slow YAML parser would cost a
promotion more processor time than all else it does with the store, beside a service that needs it.
"""

from __future__ import annotations

import contextlib
import shutil
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import yaml

from training.errors import StoreError
from training.model_store.store_folder import store_folder
from training.model_store.store_record import Pair
from training.model_store.store_retention import unused

STORE_NETWORK, STORE_TREES = "fraud_neural_net", "fraud_xgboost"
# The same parser in C, 8x as fast, where PyYAML was built with it.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def complete_pairs() -> list[Pair]:
    """Return the pairs whose two models are in the store under one version, newest first."""
    networks = _stored_models(STORE_NETWORK)
    trees = sorted(_stored_models(STORE_TREES).items(), key=lambda item: item[1].created, reverse=True)
    return [
        Pair(version, model.release, model.fingerprint)
        for version, model in trees
        if version in networks and networks[version].identity == model.identity
    ]


def count_versions() -> int:
    """Return how many versions of the trees are in the store, without reading any."""
    return len(_folders(STORE_TREES))


def model_folder(name: str, version: str) -> Path:
    """Return the folder of a stored model's files; raises StoreError when there is none."""
    folder = store_folder() / name / version / "mlflow_model"
    if not folder.is_dir():
        raise StoreError(
            f"{name}:{version} is not in the BentoML model store; run `python -m training import`"
        )
    return folder


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
    both = _stored_models(STORE_NETWORK).keys() & _stored_models(STORE_TREES).keys()
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


class _StoredModel(NamedTuple):
    """What a model's ``model.yaml`` says."""

    release: str
    fingerprint: str
    created: datetime

    @property
    def identity(self) -> tuple[str, str]:
        """What both models of a pair share."""
        return self.release, self.fingerprint


def _stored_models(name: str) -> dict[str, _StoredModel]:
    """Return version to model of those that can be read; a killed import leaves others."""
    models = {}
    for folder in _folders(name):
        with contextlib.suppress(Exception):  # a torn model.yaml fails in as many ways as it can be torn
            models[folder.name] = _read_model(folder / "model.yaml")
    return models


def _read_model(path: Path) -> _StoredModel:
    document = yaml.load(path.read_bytes(), Loader=YAML_LOADER)  # noqa: S506  # a safe loader
    labels = document["labels"]
    created = datetime.fromisoformat(str(document["creation_time"]))
    return _StoredModel(labels.get("release", ""), labels.get("fingerprint", ""), created)


def _delete(name: str, version: str) -> None:
    import bentoml

    with contextlib.suppress(bentoml.exceptions.NotFound):
        bentoml.models.delete(f"{name}:{version}")
