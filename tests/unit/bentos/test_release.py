"""Which pair is served: never a mix."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models.model import ModelStore

from bentos.errors import ReleaseError
from bentos.release import PAIR_VARIABLE, describe, find_release, hand_down
from tests.serving_fixtures import store_model, store_release


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make an empty model store the one in use."""
    (tmp_path / "models").mkdir()
    monkeypatch.setenv(PAIR_VARIABLE, "")
    with BentoMLContainer.model_store.patch(ModelStore(tmp_path / "models")):
        yield tmp_path


def test_an_empty_store_has_nothing_to_serve(home: Path) -> None:
    with pytest.raises(ReleaseError, match="complete release"):
        find_release()


def test_the_newest_pair_is_active(home: Path) -> None:
    store_release(home, "9")
    store_release(home, "10")
    assert find_release().number == "10"
    assert find_release("9").xgboost_tag == "fraud_xgboost:9"
    with pytest.raises(ReleaseError, match="release 11"):
        find_release("11")


def test_a_release_promoted_again_is_active_again(home: Path) -> None:
    store_release(home, "9")
    store_release(home, "10")
    store_release(home, "9", version="9-2")
    release = find_release()
    assert (release.number, release.neural_net_tag) == ("9", "fraud_neural_net:9-2")
    assert find_release("9").xgboost_tag == "fraud_xgboost:9-2"


def test_a_half_done_import_changes_nothing(home: Path) -> None:
    store_release(home, "9")
    store_model(home, "fraud_neural_net", "10")
    assert find_release().number == "9"


def test_models_of_different_training_never_pair(home: Path) -> None:
    store_model(home, "fraud_neural_net", "9", fingerprint="one")
    store_model(home, "fraud_xgboost", "9", fingerprint="other")
    with pytest.raises(ReleaseError):
        find_release()


def test_a_process_started_later_serves_the_same_pair(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_release(home, "9")
    hand_down(find_release())
    store_release(home, "10")
    assert find_release().number == "9"


def test_info_tells_what_is_served(home: Path) -> None:
    store_release(home, "9")
    info = describe(find_release())
    assert info["release"] == "9"
    assert info["models"] == {"neural_net": "fraud_neural_net:9", "xgboost": "fraud_xgboost:9"}
    assert info["feature_names"][0] == "Time" and len(info["feature_names"]) == 30
    assert info["registered_models"]["fraud_xgboost"]["version"] == "1"
    assert info["metrics"]["pair.average_precision"]["low"] == 0.7
