"""The MLflow registry: which release is champion, and how that changes.

One version of ``fraud-detector`` is a release: moving its alias promotes network, trees, calibration and
thresholds at once. The same aliases on the two models' own versions follow it and are repaired here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import LostFilesError, NoSuchVersionError, RegistryError, TrainingError
from training.registry.relocation import relocate_artifacts
from training.termination import stop_deferred

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

RELEASE, NETWORK, TREES = "fraud-detector", "fraud-neural-net", "fraud-xgboost"
CHAMPION, CHALLENGER = "champion", "challenger"
DESCRIPTIONS = {
    RELEASE: "A release: network, trees, calibration and thresholds that were fitted together.",
    NETWORK: "The network of each release.",
    TREES: "The gradient-boosted trees of each release.",
}
HISTORY_TAG = "promotion_history"
HISTORY_LENGTH = 100  # a registered model's tag holds 5,000 characters
# Where an address carries credentials: before the last @ (passwords hold @ and /), or in its query.
CREDENTIALS = re.compile(r"(://(?!/))\S*(?=@)|([?&](?:password|passwd|token)=)[^&\s]+", re.IGNORECASE)


# Packages whose modules have another name.
PACKAGES = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary", "google": "google-cloud-storage"}
# What MLflow says about something that was deleted.
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class Release:
    """One version of ``fraud-detector`` and what it is made of."""

    number: str
    network_version: str
    trees_version: str
    fingerprint: str
    run_id: str
    tags: dict[str, str]
    created_ms: int
    aliases: tuple[str, ...] = ()


class Registry:
    """Releases and their aliases."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self.shown_uri = mask_credentials(tracking_uri)
        self.client = _connect(tracking_uri)

    def release(self, number: str) -> Release:
        """Return a release by its number; raises RegistryError when there is none."""
        with translate_registry_errors(self.tracking_uri):
            found = [item for item in self.releases() if item.number == number]
        if not found:
            raise RegistryError(f"there is no release {number}; `python -m training releases` lists them")
        return found[0]

    def releases(self) -> list[Release]:
        """Return all complete releases, oldest first."""
        with translate_registry_errors(self.tracking_uri):
            versions = self.client.search_model_versions(f"name = '{RELEASE}'", max_results=10_000)
            aliases: dict[str, list[str]] = {}
            for alias, version in self._aliases(RELEASE).items():
                aliases.setdefault(str(version), []).append(alias)
        releases = [_release(item, tuple(sorted(aliases.get(str(item.version), ())))) for item in versions]
        return sorted((item for item in releases if item is not None), key=lambda item: int(item.number))

    def champion(self) -> Release | None:
        """Return the promoted release, None before the first."""
        with translate_registry_errors(self.tracking_uri):
            number = self._aliases(RELEASE).get(CHAMPION)
        if number is None:
            return None
        return self.release(str(number))

    def require_champion(self) -> Release:
        """Return the promoted release; raises RegistryError when there is none."""
        champion = self.champion()
        if champion is None:
            raise RegistryError(
                f"no release in {self.shown_uri} has the alias {CHAMPION}: "
                "train one with `python -m training train`"
            )
        return champion

    def require_challenger(self) -> Release:
        """Return the challenger; raises RegistryError when there is none."""
        with translate_registry_errors(self.tracking_uri):
            number = self._aliases(RELEASE).get(CHALLENGER)
        if number is None:
            raise RegistryError(
                f"no release in {self.shown_uri} has the alias {CHALLENGER}: "
                "register one with `python -m training train --challenge`"
            )
        return self.release(str(number))

    def register(
        self, name: str, model_uri: str, run_id: str, tags: Mapping[str, str], description: str = ""
    ) -> str:
        """Make a stored model a new version of a registered model and return its number."""
        from mlflow.exceptions import MlflowException

        with translate_registry_errors(self.tracking_uri):
            if not self.client.search_registered_models(f"name = '{name}'", max_results=1):
                with contextlib.suppress(MlflowException):  # another training made it first
                    self.client.create_registered_model(name, description=DESCRIPTIONS[name])
            model_id = model_uri.removeprefix("models:/")
            created = self.client.create_model_version(
                name, model_uri, run_id, dict(tags), description=description, model_id=model_id
            )
        return str(created.version)

    def set_challenger(self, release: Release) -> None:
        """Name a release the challenger."""
        self._set_alias(release, CHALLENGER)

    def promote(self, release: Release, tags: dict[str, str] | None = None) -> None:
        """Make a release the champion.

        The history is written first and the alias last: whatever interrupts this, the alias decides and the
        history is cut back to it.
        """
        with translate_registry_errors(self.tracking_uri):
            for key, value in (tags or {}).items():
                self.client.set_model_version_tag(RELEASE, release.number, key, value)
            history = self.history()
            if not history or history[-1] != release.number:
                self._write_history([*history, release.number])
            self._set_alias(release, CHAMPION)
            self._clear_challenger(release)

    def rollback(self) -> Release:
        """Make the release before the champion champion again and return it."""
        releases = {release.number: release for release in self.releases()}
        history = self.history()
        earlier = history[:-1]
        while earlier and earlier[-1] not in releases:  # somebody deleted it since
            earlier.pop()
        if not earlier:
            raise RegistryError("there is no earlier release to go back to")
        release = releases[earlier[-1]]
        with translate_registry_errors(self.tracking_uri):
            self._set_alias(release, CHAMPION)
            self._write_history(earlier)
        return release

    def history(self) -> list[str]:
        """Return the numbers of the champions in order, the present one last."""
        with translate_registry_errors(self.tracking_uri):
            champion = self._aliases(RELEASE).get(CHAMPION)
            if champion is None:
                return []
            written = json.loads(self.client.get_registered_model(RELEASE).tags.get(HISTORY_TAG, "[]"))
        while written and written[-1] != str(champion):
            written.pop()
        return written or [str(champion)]

    def set_tag(self, release: Release, key: str, value: str) -> None:
        """Record something on a release, and on its run, where runs are compared."""
        with translate_registry_errors(self.tracking_uri):
            self.client.set_model_version_tag(RELEASE, release.number, key, value)
            self._tag_run(release.run_id, key, value)

    def _tag_run(self, run_id: str, key: str, value: str) -> None:
        with _unless_gone():
            self.client.set_tag(run_id, key, value)

    def run_text(self, release: Release, path: str) -> str:
        """Return a text that the run of a release stored."""
        import mlflow

        with translate_registry_errors(self.tracking_uri):
            return str(mlflow.artifacts.load_text(f"runs:/{release.run_id}/{path}"))

    def fetch(self, release: Release, into: Path) -> Path:
        """Copy the files a release carries to a folder below `into` and return that folder."""
        (into / RELEASE).mkdir()
        folder = self._download(RELEASE, release.number, into / RELEASE) / "artifacts"
        if not (folder / "release.json").is_file():
            raise self._lost(RELEASE, release.number)
        return folder

    def fetch_model(self, name: str, version: str, into: Path) -> Path:
        """Copy the files of a version of a registered model to `into` and return the folder they are in."""
        into.mkdir()
        return self._download(name, version, into)

    def _download(self, name: str, version: str, into: Path) -> Path:
        import mlflow

        uri = f"models:/{name}/{version}"
        try:
            with translate_registry_errors(self.tracking_uri):
                return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(into)))
        except (OSError, NoSuchVersionError) as error:  # MLflow's words where a version's folder is gone
            raise self._lost(name, version) from error

    def _lost(self, name: str, version: str) -> LostFilesError:
        what = f"release {version}" if name == RELEASE else f"version {version} of {name}"
        return LostFilesError(f"{what} has lost its files in {self.shown_uri}: train again")

    def _write_history(self, numbers: list[str]) -> None:
        text = json.dumps(numbers[-HISTORY_LENGTH:])
        self.client.set_registered_model_tag(RELEASE, HISTORY_TAG, text)

    def _set_alias(self, release: Release, alias: str) -> None:
        with translate_registry_errors(self.tracking_uri):
            before = str(self._aliases(RELEASE).get(alias))
            self.client.set_registered_model_alias(RELEASE, alias, release.number)
            for other in (item for item in self.releases() if item.number == before != release.number):
                self._tag_run(other.run_id, "alias", "")
            self._tag_run(release.run_id, "alias", alias)
        self._follow(release, alias)

    def _clear_challenger(self, release: Release) -> None:
        """Take the alias challenger from the release that has become champion."""
        if str(self._aliases(RELEASE).get(CHALLENGER)) == release.number:
            for name in (NETWORK, TREES, RELEASE):
                self.client.delete_registered_model_alias(name, CHALLENGER)

    def _follow(self, release: Release, alias: str) -> None:
        with translate_registry_errors(self.tracking_uri):
            for name, version in ((NETWORK, release.network_version), (TREES, release.trees_version)):
                with _unless_gone():  # the release is whole without; who needs the version says so
                    self.client.set_registered_model_alias(name, alias, version)

    def _aliases(self, name: str) -> dict[str, Any]:
        found = self.client.search_registered_models(f"name = '{name}'", max_results=1)
        return dict(found[0].aliases) if found else {}


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Let a block fail where somebody deleted what it is about."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in GONE:
            raise


def _release(version: ModelVersion, aliases: tuple[str, ...]) -> Release | None:
    tags = dict(version.tags)
    needed = ("network_version", "xgboost_version", "fingerprint")
    if any(key not in tags for key in needed):
        return None
    return Release(
        number=str(version.version),
        network_version=tags["network_version"],
        trees_version=tags["xgboost_version"],
        fingerprint=tags["fingerprint"],
        run_id=str(version.run_id),
        tags=tags,
        created_ms=int(version.creation_timestamp),
        aliases=aliases,
    )


def _connect(tracking_uri: str) -> MlflowClient:
    # A registry that is down should be noticed in seconds, not after MLflow's seven retries of minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # MLflow reads the variable itself, and takes the tracking address where it is not set.
    registry_uri = os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri
    with translate_registry_errors(tracking_uri):
        relocate_artifacts(tracking_uri)
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        mlflow.set_tracking_uri(tracking_uri)
        client = mlflow.MlflowClient(tracking_uri, registry_uri)
        client.search_registered_models(max_results=1)
    return client


@contextmanager
def translate_registry_errors(tracking_uri: str) -> Iterator[None]:
    """Turn whatever MLflow and SQLAlchemy raise into one sentence; SIGTERM waits for the end of the call."""
    try:
        with stop_deferred():
            yield
    except TrainingError:
        raise
    except ModuleNotFoundError as error:
        module = str(error.name)
        raise RegistryError(
            f"the MLflow registry {mask_credentials(tracking_uri)} needs the Python package {module}, "
            f"which is not installed here: `pip install {PACKAGES.get(module, module)}`"
        ) from error
    except Exception as error:
        if not _is_registry_trouble(error):
            raise
        if getattr(error, "error_code", "") in GONE:
            raise NoSuchVersionError(_sentence(error, tracking_uri)) from error
        raise RegistryError(_sentence(error, tracking_uri)) from error


def _is_registry_trouble(error: Exception) -> bool:
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return bool(modules & {"mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3", "alembic"})


def mask_credentials(text: str) -> str:
    """Return `text` without the credentials in its addresses.

    Examples
    --------
    >>> mask_credentials("postgresql://mlflow:s3cret@db:5432/mlflow cannot be reached")
    'postgresql://***@db:5432/mlflow cannot be reached'
    """
    return CREDENTIALS.sub(r"\1\2***", text)


def _sentence(error: Exception, uri: str) -> str:
    tracking_uri = mask_credentials(uri)
    # Clients repeat the address, and sometimes only a part of it.
    text = mask_credentials(" ".join(str(error).replace(uri, tracking_uri).split()))[:300]
    if "locked" in text:
        return (
            f"the MLflow database {tracking_uri} is locked by another process: try again when that has ended"
        )
    if any(word in text for word in ("Max retries", "Connection", "refused", "timed out", "unable to open")):
        advice = "start it or set MLFLOW_TRACKING_URI"
        return f"the MLflow registry {tracking_uri} cannot be reached: {advice} ({text})"
    return f"the MLflow registry {tracking_uri} refused: {text}"
