"""What the model store holds: the record of releases, and pairs of models. Reads only.

Reads the files themselves: BentoML's listing parses every model with the slow YAML parser, and fails at the
first folder that a killed import left half copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from bentos.errors import ReleaseError

NEURAL_NET, XGBOOST = "fraud_neural_net", "fraud_xgboost"
MODELS = (NEURAL_NET, XGBOOST)
RECORD_FILE = "releases.json"
RECORD_SCHEMA = 1
# The same parser in C, 8x as fast, where PyYAML was built with it.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class StoredPair:
    """Both models of a release, in the store under one version."""

    version: str
    release: str
    fingerprint: str


class ModelStore:
    """The folder of the models of a BentoML store.

    Parameters
    ----------
    folder : Path
        ``<BENTOML_HOME>/models``, or the models inside a bento.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stamp(self) -> str:
        """Return what changes whenever another release may have become active; two `stat` calls at most."""
        for path in (self.folder / RECORD_FILE, self.folder / XGBOOST):
            try:
                found = path.stat()
            except OSError:
                continue
            return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
        return "empty"

    def record(self) -> dict[str, StoredPair | None] | None:
        """Return the pairs ``active``, ``challenger`` and ``previous``; None where there is no record yet.

        Raises
        ------
        ReleaseError
            If the record cannot be read.
        """
        path = self.folder / RECORD_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["schema"] != RECORD_SCHEMA:
                raise ValueError(f"schema {document['schema']!r}")
            named = {name: document[name] for name in ("active", "challenger", "previous")}
            return {name: None if pair is None else StoredPair(**pair) for name, pair in named.items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ReleaseError(
                f"{path} cannot be read as the store's record of releases ({error!r}); "
                "`python -m training import` says what to do."
            ) from error

    def pairs(self) -> list[StoredPair]:
        """Return the pairs whose two models are there and belong together, newest first."""
        found = []
        try:
            folders = [folder for folder in (self.folder / XGBOOST).iterdir() if folder.is_dir()]
        except OSError:
            return []
        for folder in folders:
            try:
                trees, network = (self.document(name, folder.name) for name in (XGBOOST, NEURAL_NET))
                created = datetime.fromisoformat(str(trees["creation_time"]))
            except (ReleaseError, LookupError, ValueError):
                continue  # half of a pair, or half copied
            if identity(trees) == identity(network):
                found.append((created, StoredPair(folder.name, *identity(trees))))
        return [pair for _, pair in sorted(found, key=lambda item: item[0], reverse=True)]

    def model_folder(self, name: str, version: str) -> Path:
        """Return the folder of a model's own files."""
        return self.folder / name / version / "mlflow_model"

    def document(self, name: str, version: str) -> Mapping[str, Any]:
        """Return what BentoML's ``model.yaml`` says about a model.

        Raises
        ------
        ReleaseError
            If the model is not there or cannot be read.
        """
        path = self.folder / name / version / "model.yaml"
        try:
            document = yaml.load(path.read_bytes(), Loader=YAML_LOADER)  # noqa: S506  # a safe loader
        except (OSError, yaml.YAMLError) as error:
            raise ReleaseError(f"{name}:{version} cannot be read from {self.folder}.") from error
        if not isinstance(document, dict) or not isinstance(document.get("labels"), dict):
            raise ReleaseError(f"{path} is damaged.")
        return document


def identity(document: Mapping[str, Any]) -> tuple[str, str]:
    """Return release and fingerprint of a stored model: what two models must share to be a pair."""
    labels = document["labels"]
    return str(labels.get("release", "")), str(labels.get("fingerprint", ""))
