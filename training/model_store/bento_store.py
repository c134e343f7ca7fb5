"""Registered release -> BentoML model store: both models, or nothing that is ever served.

The record of `training.model_store.store_record` says which pair is served; it changes last.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import StoreError
from training.model_store.store_folder import make_store_folder, store_folder
from training.model_store.store_record import Pair, StoreRecord, read_record, write_record
from training.model_store.store_retention import unused, versions_beyond
from training.model_store.stored_pairs import (
    STORE_NETWORK,
    STORE_TREES,
    complete_pairs,
    count_versions,
    delete_pair,
    free_version,
    model_folder,
    remove_halves,
)
from training.registry.releases import NETWORK, TREES, Registry, Release

NETWORK_FILE, TREES_FILE = Path("extra_files", "model.onnx"), Path("model.ubj")
# What serving reads of each model: scores, and the network's reasons.
NEEDED = {
    STORE_NETWORK: (NETWORK_FILE, Path("extra_files", "attribution.onnx")),
    STORE_TREES: (TREES_FILE,),
}
# Travels with each model, so that a service can check for itself that it scores as when it was trained.
REFERENCE_FILE = Path("reference.json")
LOCK_TIMEOUT_S = 60.0  # an import takes a second or two
# Scores of a stored model against the trained one's: float32 rounding, no more.
PARITY = 1e-6


def active_pair() -> Pair | None:
    """Return the pair that services follow; None where the store has none.

    In a store older than the record it is the complete pair whose trees were imported last.
    """
    record = read_record(store_folder())
    return (record or _first_record()).active


def import_release(
    registry: Registry, release: Release, *, as_challenger: bool = False, keep: int = 5
) -> tuple[Pair, bool]:
    """Make `release` the active pair of the store, or its challenger; running services follow.

    A pair that is in the store already is checked again and used. Cut anywhere, the record names what it
    named before.

    Parameters
    ----------
    registry, release
        What is imported.
    as_challenger : bool
        Whether the active pair stays.
    keep : int
        Pairs to keep, the newest ones; older ones are deleted unless the record or a service needs them.

    Returns
    -------
    Pair, bool
        The pair, and whether anything was imported.

    Raises
    ------
    StoreError
        If a model does not score the reference batch as the trained one did, or the store cannot be written;
        nothing stays behind.
    """
    with _locked() as models:
        record = read_record(models)
        if record is None:  # written first: what is imported next must not count as active before it is
            record = _first_record()
            write_record(models, record)
        pair = _find_intact(release)
        is_new = pair is None
        if pair is None:
            pair = _import_anew(registry, release)
        changed = record.with_challenger(pair) if as_challenger else record.with_active(pair)
        if changed != record:
            write_record(models, changed)
        _delete_old(changed, keep)
    return pair, is_new


def _first_record() -> StoreRecord:
    pairs = complete_pairs()
    return StoreRecord(active=pairs[0] if pairs else None)


def _find_intact(release: Release) -> Pair | None:
    wanted = (release.number, release.fingerprint)
    pairs = (pair for pair in complete_pairs() if (pair.release, pair.fingerprint) == wanted)
    return next((pair for pair in pairs if _is_intact(pair)), None)


def _is_intact(pair: Pair) -> bool:
    """Say whether both models still score as when they were trained; older imports lack the evidence."""
    parts = _parts(pair.release, pair.release)
    folders = [model_folder(part.name, pair.version) for part in parts]
    if not all((folder / REFERENCE_FILE).is_file() for folder in folders):
        return False
    try:
        for part, folder in zip(parts, folders, strict=True):
            part.check(folder, folder)
    except (StoreError, OSError, ValueError):
        return False
    return True


def _import_anew(registry: Registry, release: Release) -> Pair:
    remove_halves()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _import_pair(registry, release, Path(folder))
        except OSError as error:
            raise StoreError(f"release {release.number} cannot be imported: {error}") from error


def _delete_old(record: StoreRecord, keep: int) -> None:
    if count_versions() <= keep:
        return
    newest_first = [pair.version for pair in complete_pairs()]
    packed = _packed_versions()
    if packed is None:
        return
    for version in versions_beyond(newest_first, keep, record.versions | packed):
        with unused(*(store_folder() / name / version for name in NEEDED)) as is_unused:
            if is_unused:
                delete_pair(version)


def _packed_versions() -> frozenset[str] | None:
    """Return the versions that bentos of this store were built with, None where that cannot be read.

    A bento in the store is served from the models in the store.
    """
    import bentoml

    try:
        tags = [model.tag for bento in bentoml.list() for model in bento.info.all_models]
    except (bentoml.exceptions.BentoMLException, OSError):
        return None
    return frozenset(str(tag.version) for tag in tags if tag.name in NEEDED)


def _parts(network_version: str, trees_version: str) -> tuple[_Part, _Part]:
    # The trees come last: with them the pair counts, so both are checked before anything is imported.
    return (
        _Part(STORE_NETWORK, NETWORK, network_version, _network_scores),
        _Part(STORE_TREES, TREES, trees_version, _tree_scores),
    )


def _import_pair(registry: Registry, release: Release, folder: Path) -> Pair:
    carried = registry.fetch(release, folder)
    document = json.loads((carried / "release.json").read_text(encoding="utf-8"))
    version = free_version(release.number)
    parts = _parts(release.network_version, release.trees_version)
    fetched = [registry.fetch_model(part.registered, part.number, folder / part.name) for part in parts]
    for part, source in zip(parts, fetched, strict=True):
        part.check(source, carried)
        shutil.copy(carried / REFERENCE_FILE, source / REFERENCE_FILE)
    try:
        for part, source in zip(parts, fetched, strict=True):
            run_id = str(registry.client.get_model_version(part.registered, part.number).run_id)
            part.store(source, version, release, run_id, document)
            part.check(model_folder(part.name, version), carried)
    except BaseException:
        delete_pair(version)
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
        document = json.loads((carried / REFERENCE_FILE).read_text(encoding="utf-8"))
        lost = [str(file) for file in NEEDED[self.name] if not (model / file).is_file()]
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
                **_without_nulls(document),
                "release": release.number,
                "model": {"registered_model": self.registered, "version": self.number, "run_id": run_id},
            },
        )


def _without_nulls(document: Any) -> Any:  # noqa: ANN401  # whatever JSON holds
    """Leave out what is null: BentoML refuses it in metadata, and an absent key means the same.

    Examples
    --------
    >>> _without_nulls({"expected_loss": None, "bins": [{"edge": None, "share": 1.0}]})
    {'bins': [{'share': 1.0}]}
    """
    if isinstance(document, dict):
        return {key: _without_nulls(value) for key, value in document.items() if value is not None}
    if isinstance(document, list):
        return [_without_nulls(value) for value in document]
    return document


def _network_scores(model: Path, features: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a few rows, beside services that need the cores
    path = str(model / NETWORK_FILE)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    scores: NDArray[np.float32] = session.run(None, {"features": features})[0]
    return scores


def _tree_scores(model: Path, features: NDArray[np.float32]) -> NDArray[np.float32]:
    with _scikit_learn_hidden():
        import xgboost

    booster = xgboost.Booster(model_file=model / TREES_FILE)
    booster.set_param({"nthread": 1})  # a few rows, beside services that need the cores
    scores: NDArray[np.float32] = booster.inplace_predict(features, validate_features=False)
    return scores


@contextmanager
def _scikit_learn_hidden() -> Iterator[None]:
    """Keep XGBoost from importing scikit-learn and SciPy for classes that are not used: a second less."""
    if "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # None says absent
    try:
        yield
    finally:
        del sys.modules["sklearn"]


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _locked() -> Iterator[Path]:
    """Let one import at a time work on the store; the lock ends with the process, however that ends.

    The folder of the models itself is locked: it is all of the store that containers share. Yields it.
    """
    store = make_store_folder()
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
        yield store
