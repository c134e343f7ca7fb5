"""Registered release -> BentoML model store: both models, or nothing that is ever served."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.errors import StoreError
from training.registry.releases import NETWORK, TREES, Registry, Release

if TYPE_CHECKING:
    import bentoml

STORE_NETWORK, STORE_TREES = "fraud_neural_net", "fraud_xgboost"
NETWORK_FILE, TREES_FILE = Path("extra_files", "model.onnx"), Path("model.ubj")
# What serving reads of each model: scores, and the network's reasons.
NEEDED = {
    STORE_NETWORK: (NETWORK_FILE, Path("extra_files", "attribution.onnx")),
    STORE_TREES: (TREES_FILE,),
}
LOCK_TIMEOUT_S = 60.0  # an import takes a second or two
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
        If a model does not score the reference batch as the trained one did; nothing stays behind.
    """
    with _locked():
        active = active_pair()
        wanted = (release.number, release.fingerprint)
        if active is not None and (active.release, active.fingerprint) == wanted and _is_whole(active):
            return active, False
        remove_halves()
        with tempfile.TemporaryDirectory() as folder:
            return _import_pair(registry, release, Path(folder)), True


def _import_pair(registry: Registry, release: Release, folder: Path) -> Pair:
    carried = registry.fetch(release, folder)
    document = json.loads((carried / "release.json").read_text(encoding="utf-8"))
    version = _free_version(release.number)
    # The trees come last: with them the pair counts, so both are checked before anything is imported.
    parts = (
        _Part(STORE_NETWORK, NETWORK, release.network_version, _network_scores),
        _Part(STORE_TREES, TREES, release.trees_version, _tree_scores),
    )
    fetched = [registry.fetch_model(part.registered, part.number, folder / part.name) for part in parts]
    for part, source in zip(parts, fetched, strict=True):
        part.check(source, carried)
    try:
        for part, source in zip(parts, fetched, strict=True):
            run_id = str(registry.client.get_model_version(part.registered, part.number).run_id)
            part.store(source, version, release, run_id, document)
            part.check(_path(part.name, version), carried)
    except BaseException:
        for part in reversed(parts):
            _delete(part.name, version)
        raise
    return Pair(version, release.number, release.fingerprint)


@dataclass(frozen=True)
class _Part:
    """One of the two models on its way to the store."""

    name: str
    registered: str
    number: str
    scores: Callable[[Path, NDArray[np.float32]], NDArray[np.float32]]

    def check(self, model: Path, carried: Path) -> None:
        """Raise StoreError unless the model scores the reference batch like the trained one."""
        document = json.loads((carried / "reference.json").read_text(encoding="utf-8"))
        lost = _missing(self.name, model)
        if lost:
            raise StoreError(f"{self.registered} {self.number} has lost {', '.join(lost)}: train again")
        try:
            scores = self.scores(model, np.array(document["features"], np.float32))
        except Exception as error:  # each library has its own for a file it cannot read
            raise StoreError(
                f"{self.registered} {self.number} cannot be loaded: its files have changed, train again"
            ) from error
        expected = np.array(document["xgboost" if self.name == STORE_TREES else "neural_net"])
        difference = float(np.abs(scores - expected).max())
        if not difference <= PARITY:
            raise StoreError(
                f"{self.registered} {self.number} does not score the reference batch as when it was trained "
                f"(off by {difference:.2g}): its files have changed, train again"
            )

    def store(
        self, source: Path, version: str, release: Release, run_id: str, document: dict[str, Any]
    ) -> None:
        """Import the model under a version of its own."""
        import bentoml

        logging.getLogger("bentoml").setLevel(logging.ERROR)
        bentoml.mlflow.import_model(
            f"{self.name}:{version}",
            str(source),
            labels={
                "release": release.number,
                "run_id": run_id,
                "version": self.number,
                "fingerprint": release.fingerprint,
            },
            metadata={
                **document,
                "release": release.number,
                "model": {"registered_model": self.registered, "version": self.number, "run_id": run_id},
            },
        )


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


def _network_scores(model: Path, features: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model / NETWORK_FILE), providers=["CPUExecutionProvider"])
    scores: NDArray[np.float32] = session.run(None, {"features": features})[0]
    return scores


def _tree_scores(model: Path, features: NDArray[np.float32]) -> NDArray[np.float32]:
    import xgboost

    booster = xgboost.Booster(model_file=model / TREES_FILE)
    scores: NDArray[np.float32] = booster.inplace_predict(features, validate_features=False)
    return scores


def _is_whole(pair: Pair) -> bool:
    return not any(_missing(name, _path(name, pair.version)) for name in NEEDED)


def _missing(name: str, model: Path) -> list[str]:
    return [str(file) for file in NEEDED[name] if not (model / file).is_file()]


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _locked() -> Iterator[None]:
    """Let one import at a time work on the store; the lock ends with the process, however that ends.

    The folder of the models itself is locked: it is all of the store that containers share.
    """
    store = Path(os.environ.get("BENTOML_HOME", Path.home() / "bentoml")) / "models"
    store.mkdir(parents=True, exist_ok=True)
    with _opened(store) as file:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise StoreError(f"another import has held {store} for {LOCK_TIMEOUT_S:g} s") from error
                time.sleep(0.1)
        yield


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
