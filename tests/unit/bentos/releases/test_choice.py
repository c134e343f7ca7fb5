"""Which pair is served: never a mix, and always the one that was asked for."""

import json
from pathlib import Path

import pytest
import yaml

from bentos.errors import NoReleaseError, ReleaseError
from bentos.releases.choice import PACKED_VARIABLE, choose
from bentos.releases.release import describe, read_release
from bentos.releases.store import RECORD_FILE, ModelStore
from bentos.settings.sections import LimitSettings
from tests.serving_fixtures import store_model, store_release, write_record


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home with an empty model store."""
    monkeypatch.delenv(PACKED_VARIABLE, raising=False)
    (tmp_path / "models").mkdir()
    return tmp_path


def chosen(home: Path, release: str | None = None) -> str:
    return choose(ModelStore(home / "models"), release).version


def test_an_empty_store_has_nothing_to_serve(home: Path) -> None:
    with pytest.raises(NoReleaseError, match="complete release"):
        chosen(home)


def test_without_a_record_the_newest_pair_is_active(home: Path) -> None:
    store_release(home, "9")
    store_release(home, "10")
    store_release(home, "9", version="9-2")
    assert chosen(home) == "9-2"
    assert chosen(home, "10") == "10"
    with pytest.raises(NoReleaseError, match="release 11"):
        chosen(home, "11")


def test_the_record_says_what_is_active(home: Path) -> None:
    store_release(home, "9")
    store_release(home, "10")
    write_record(home, active="9")
    assert chosen(home) == "9"
    assert chosen(home, "10") == "10"
    with pytest.raises(NoReleaseError, match="no challenger"):
        chosen(home, "challenger")
    write_record(home, active="9", challenger="10")
    assert chosen(home, "challenger") == "10"


def test_a_record_without_an_active_pair_gives_nothing_to_serve(home: Path) -> None:
    store_release(home, "9")
    write_record(home, challenger="9")
    with pytest.raises(NoReleaseError, match="complete release"):
        chosen(home)


@pytest.mark.parametrize("text", ["", '{"schema": 1, "act', "[]", '{"schema": 2}', '{"schema": 1}'])
def test_a_record_that_is_not_one_is_refused(home: Path, text: str) -> None:
    store_release(home, "9")
    (home / "models" / RECORD_FILE).write_text(text)
    with pytest.raises(ReleaseError, match="cannot be read as the store's record"):
        chosen(home)


def test_the_stamp_changes_with_the_record_and_before_there_is_one_with_the_pairs(home: Path) -> None:
    store = ModelStore(home / "models")
    stamps = [store.stamp()]
    for change in (
        lambda: store_release(home, "9"),
        lambda: write_record(home, active="9"),
        lambda: write_record(home, active="9"),
    ):
        change()
        stamps.append(store.stamp())
    assert len(set(stamps)) == len(stamps)


def test_a_half_done_import_changes_nothing(home: Path) -> None:
    store_release(home, "9")
    store_model(home, "fraud_neural_net", "10")
    (home / "models" / "fraud_xgboost" / "11").mkdir()
    torn = home / "models" / "fraud_xgboost" / "12"
    torn.mkdir()
    (torn / "model.yaml").write_text("name: fraud_xg")
    assert chosen(home) == "9"


def test_models_of_different_training_never_pair(home: Path) -> None:
    store_model(home, "fraud_neural_net", "9", fingerprint="one")
    store_model(home, "fraud_xgboost", "9", fingerprint="other")
    with pytest.raises(NoReleaseError):
        chosen(home)
    with pytest.raises(ReleaseError, match="not of one release"):
        read_release(ModelStore(home / "models"), "9", LimitSettings())


def test_a_bento_serves_what_was_packed_into_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_release(home, "9")
    store_release(home, "10")
    monkeypatch.setenv(PACKED_VARIABLE, "9")
    assert chosen(home) == chosen(home, "9") == "9"
    with pytest.raises(ReleaseError, match="built with release 9 and serves no other"):
        chosen(home, "10")
    monkeypatch.setenv(PACKED_VARIABLE, "7")
    with pytest.raises(NoReleaseError, match="version 7"):
        chosen(home)


def test_info_tells_what_is_served(home: Path) -> None:
    store_release(home, "9")
    info = describe(read_release(ModelStore(home / "models"), "9", LimitSettings()))
    assert info["release"] == "9"
    assert info["models"] == {"neural_net": "fraud_neural_net:9", "xgboost": "fraud_xgboost:9"}
    assert info["feature_names"][0] == "Time" and len(info["feature_names"]) == 30
    assert info["registered_models"]["fraud_xgboost"]["version"] == "1"
    assert info["metrics"]["pair.average_precision"]["low"] == 0.7


def change_document(home: Path, **changes: object) -> None:
    path = home / "models" / "fraud_neural_net" / "9" / "model.yaml"
    document = yaml.safe_load(path.read_text())
    document["metadata"] |= changes
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"feature_names": ["Time", "Amount"]}, "other features"),
        ({"calibration": {"method": "isotonic"}}, "does not know the calibration method 'isotonic'"),
        ({"thresholds": {"neural_net": 0.5}}, "not complete"),
        ({"input_limits": {"amount_max": 1.0}}, "not complete"),
    ],
)
def test_a_release_that_this_service_cannot_serve_is_refused(
    home: Path, changes: dict[str, object], sentence: str
) -> None:
    store_release(home, "9")
    change_document(home, **changes)
    with pytest.raises(ReleaseError, match=sentence):
        read_release(ModelStore(home / "models"), "9", LimitSettings())


def test_a_release_trained_with_narrower_limits_is_refused(home: Path) -> None:
    store_release(home, "9")
    limits = LimitSettings()
    trained = {"time_min_s": 0.0, "amount_min": 0.0, **limits.model_dump()}
    store = ModelStore(home / "models")
    change_document(home, input_limits=trained)
    assert read_release(store, "9", limits).number == "9"
    change_document(home, input_limits={**trained, "amount_max": limits.amount_max / 10})
    with pytest.raises(ReleaseError, match=r"limits\.amount_max"):
        read_release(store, "9", limits)
