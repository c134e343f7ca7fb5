"""A small training and registries of its own: what the tests of training share."""

import importlib.util
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console

from training.console import ProgressConsole
from training.data.simulate import simulate
from training.data.transactions import Transactions, from_frame
from training.registry.releases import Registry, Release
from training.settings.load import Settings

if TYPE_CHECKING:
    from training.models.training import TrainingResult

SMALL = {
    "threads": 1,
    "device": "cpu",
    "network": {"hidden": [32, 16], "epochs": 6, "batch_rows": 128, "learning_rate": 0.005},
    "xgboost": {"trees": 20, "max_depth": 3},
    "evaluation": {"resamples": 40},
    "gate": {
        "resamples": 40,
        "calibration_confidence": 0.999999,
        "max_loss_to_baseline": 0.3,
        "latency_budget_ms": 1000.0,
    },
}


# What MLflow and BentoML do to their own dependencies; nothing of ours may hide behind these.
THIRD_PARTY_WARNINGS = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "The ..noload.. loader strategy is deprecated",  # MLflow's use of SQLAlchemy 2.1
        "GitWildMatchPattern",  # BentoML's use of pathspec
        "The .__get_pydantic_core_schema__. method",  # BentoML's use of pydantic
    )
]


NEEDS_SPARK = [
    pytest.mark.skipif(
        importlib.util.find_spec("pyspark") is None, reason="needs pyspark: `make setup SPARK=1` installs it"
    ),
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17 or newer"),
]


def small_settings(**changes: object) -> Settings:
    """Return settings for models that fit in a second, apart from files and variables."""
    return Settings.model_validate({**SMALL, **changes})


def silent() -> ProgressConsole:
    """Return a console nobody sees."""
    return ProgressConsole(Console(file=io.StringIO(), width=100))


@pytest.fixture(scope="session")
def few_transactions() -> Transactions:
    """Return 3,000 simulated rows with 104 frauds; each genuine row stands for 20."""
    frame = simulate(60_000, 5)
    genuine = frame[frame["Class"] == 0].iloc[::20].head(2900)
    frame = frame.loc[sorted([*genuine.index, *frame.index[frame["Class"] == 1]])]
    frame["sample_weight"] = np.where(frame["Class"] == 0, 20.0, 1.0)
    return from_frame(frame.reset_index(drop=True), "simulated for tests")


@pytest.fixture(scope="session")
def small_training(few_transactions: Transactions):
    """Return one training of small models; read only."""
    from training.models.training import train

    return train(few_transactions, small_settings(), silent())


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty MLflow database: making its tables takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(f"sqlite:///{path}")
    return path


@pytest.fixture
def registry(empty_database: Path, tmp_path: Path) -> Iterator[Registry]:
    """Yield a registry that holds nothing yet."""
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    yield Registry(f"sqlite:///{path}")


def record(registry: Registry, training: "TrainingResult") -> Release:
    """Record a training that has ended and register it as a release."""
    from training.registry.record import record_release
    from training.registry.training_runs import open_runs

    with open_runs(registry, training.data, training.settings, "train") as runs:
        return record_release(runs, training, "tests")[0]


@pytest.fixture(scope="session")
def published(empty_database: Path, small_training, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `mlflow.db` where the small training is release 1, not promoted; read only."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copy(empty_database, folder / "mlflow.db")
    record(Registry(f"sqlite:///{folder}/mlflow.db"), small_training)
    return folder


@pytest.fixture
def released(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Return a registry with release 1 (not promoted) and an empty BentoML store of its own."""
    shutil.copy(published / "mlflow.db", tmp_path / "mlflow.db")
    use_store(tmp_path / "bentoml", monkeypatch)
    return Registry(f"sqlite:///{tmp_path}/mlflow.db")


def use_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let BentoML keep its models in `home`; it remembers the first store it opened."""
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    (home / "models").mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("BENTOML_HOME", str(home))
    monkeypatch.setattr(BentoMLContainer.model_store, "_override", ModelStore(str(home / "models")))


def copy_release(registry: Registry, times: int = 1) -> list[str]:
    """Register the files of release 1 again and return the numbers of the new releases."""
    from training.registry.releases import NETWORK, RELEASE, TREES

    first = registry.release("1")
    numbers = []
    for _ in range(times):
        version = {name: registry.client.get_model_version(name, "1") for name in (NETWORK, TREES, RELEASE)}
        network, trees = (
            registry.register(name, version[name].source, str(version[name].run_id), version[name].tags)
            for name in (NETWORK, TREES)
        )
        tags = {**first.tags, "network_version": network, "xgboost_version": trees}
        numbers.append(registry.register(RELEASE, version[RELEASE].source, first.run_id, tags))
    return numbers
