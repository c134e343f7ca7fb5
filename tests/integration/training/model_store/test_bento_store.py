import errno
import fcntl
import os

import bentoml
import numpy as np
import pytest

from tests.training_fixtures import THIRD_PARTY_WARNINGS, copy_release
from training.errors import RegistryError, StoreError
from training.model_store import bento_store as store
from training.model_store.bento_store import (
    STORE_NETWORK,
    STORE_TREES,
    active_pair,
    import_release,
)
from training.model_store.store_folder import store_folder
from training.model_store.store_record import RECORD_FILE, Pair, StoreRecord, read_record, write_record
from training.model_store.stored_pairs import model_folder, remove_halves

pytestmark = THIRD_PARTY_WARNINGS


def versions():
    return {
        name: sorted(str(model.tag.version) for model in bentoml.models.list() if model.tag.name == name)
        for name in (STORE_NETWORK, STORE_TREES)
    }


def test_empty_store_has_no_pair(released):
    assert active_pair() is None


def test_import_carries_what_serving_needs(released, small_training):
    release = released.release("1")
    pair, imported = import_release(released, release)
    assert imported
    assert (pair.version, pair.release) == ("1", "1")
    for name, registered, number in (
        (STORE_NETWORK, "fraud-neural-net", release.network_version),
        (STORE_TREES, "fraud-xgboost", release.trees_version),
    ):
        model = bentoml.models.get(f"{name}:1")
        metadata = model.info.metadata
        assert set(model.info.labels) == {"release", "run_id", "version", "fingerprint"}
        assert model.info.labels["fingerprint"] == small_training.data.fingerprint
        assert metadata["model"]["registered_model"] == registered
        assert metadata["model"]["version"] == number
        assert metadata["schema_version"] == 1
        assert metadata["feature_names"][0] == "Time"
        assert metadata["thresholds"]["xgboost"] == small_training.fitted.rule.thresholds.xgboost
        assert metadata["data"]["protocol"] == "random"
        low, high = (metadata["metrics"]["pair.average_precision"][end] for end in ("low", "high"))
        assert 0 <= low <= high <= 1
    folder = model_folder(STORE_NETWORK, "1")
    assert (folder / "extra_files" / "attribution.onnx").is_file()
    assert (model_folder(STORE_TREES, "1") / "model.ubj").is_file()


def test_stored_models_score_like_the_trained_ones(released, small_training):
    import mlflow
    import torch

    import_release(released, released.release("1"))
    features = small_training.test.features
    network, trees = small_training.fitted.scores(features)
    folder = model_folder(STORE_NETWORK, "1")
    assert np.abs(store._network_scores(folder, features) - network).max() <= 1e-6
    assert np.abs(store._tree_scores(model_folder(STORE_TREES, "1"), features) - trees).max() <= 1e-6
    native = mlflow.pytorch.load_model(str(folder))
    with torch.no_grad():
        assert np.abs(native(torch.from_numpy(features)).numpy() - network).max() <= 1e-6


def test_importing_twice_changes_nothing(released):
    release = released.release("1")
    import_release(released, release)
    before = versions()
    pair, imported = import_release(released, release)
    assert not imported
    assert pair.version == "1"
    assert versions() == before


def record():
    return read_record(store_folder())


def test_a_release_that_is_in_the_store_becomes_active_again_without_a_copy(released):
    copy_release(released)
    first, second = released.releases()
    assert import_release(released, first)[0].version == "1"
    assert import_release(released, second)[0].version == "2"
    pair, imported = import_release(released, first)
    assert (pair.version, imported) == ("1", False)
    assert active_pair().release == "1"
    assert record().previous.release == "2"
    assert versions() == {STORE_NETWORK: ["1", "2"], STORE_TREES: ["1", "2"]}


def test_a_challenger_comes_beside_the_active_pair(released):
    copy_release(released)
    first, second = released.releases()
    import_release(released, first)
    import_release(released, second, as_challenger=True)
    assert record() == StoreRecord(active=pair_of(first), challenger=pair_of(second))
    import_release(released, second)
    assert record() == StoreRecord(active=pair_of(second), previous=pair_of(first))


def test_a_challenger_in_an_empty_store_is_not_active(released):
    import_release(released, released.release("1"), as_challenger=True)
    assert active_pair() is None
    assert record().challenger.release == "1"


def pair_of(release):
    return Pair(release.number, release.number, release.fingerprint)


def test_a_store_older_than_the_record_keeps_its_active_pair(released, monkeypatch):
    copy_release(released)
    first, second = released.releases()
    import_release(released, first)
    (store_folder() / RECORD_FILE).unlink()

    def killed(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_import_anew", killed)
    with pytest.raises(KeyboardInterrupt):
        import_release(released, second, as_challenger=True)
    assert record() == StoreRecord(active=pair_of(first))


def test_a_record_that_cannot_be_written_leaves_the_old_one(released, monkeypatch):
    copy_release(released)
    first, second = released.releases()
    import_release(released, first)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"releases\.json cannot be written: No space left on device"):
        import_release(released, second)
    assert record() == StoreRecord(active=pair_of(first))
    assert [path.name for path in store_folder().glob(".*")] == []


@pytest.mark.parametrize(
    ("home", "words"), [("/proc/store", "No such file"), ("{}/file/store", "Not a directory")]
)
def test_a_store_that_cannot_be_made_is_named(released, tmp_path, monkeypatch, home, words):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BENTOML_HOME", home.format(tmp_path))
    with pytest.raises(
        StoreError, match=rf"model store .*/store/models cannot be written: {words}.*BENTOML_HOME"
    ):
        import_release(released, released.release("1"))


def test_home_and_variables_are_read_as_bentoml_reads_them(tmp_path, monkeypatch):
    from bentoml._internal.configuration import expand_env_var

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STORES", "$HOME/all")
    for written in ("~/store", "$HOME/store", "${STORES}/store", "~nobody-by-this-name/store"):
        monkeypatch.setenv("BENTOML_HOME", written)
        assert str(store_folder()) == f"{expand_env_var(written)}/models"
    monkeypatch.setenv("STORES", "$STORES/deeper")  # BentoML itself would never end
    monkeypatch.setenv("BENTOML_HOME", "$STORES")
    assert store_folder().name == "models"


def test_a_full_disk_while_importing_is_named_and_leaves_nothing(released, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bentoml.mlflow, "import_model", full)
    with pytest.raises(StoreError, match=r"release 1 cannot be imported: .*No space left on device"):
        import_release(released, released.release("1"))
    assert versions() == {STORE_NETWORK: [], STORE_TREES: []}
    assert active_pair() is None


def test_a_record_that_is_not_one_is_refused_with_what_to_do(released):
    import_release(released, released.release("1"))
    (store_folder() / RECORD_FILE).write_text('{"schema": 1, "active": ')
    with pytest.raises(StoreError, match="remove it, then run `python -m training import`"):
        import_release(released, released.release("1"))


def test_old_pairs_go_but_those_that_are_needed_stay(released):
    copy_release(released, times=4)
    releases = released.releases()
    import_release(released, releases[0], keep=1)
    import_release(released, releases[1], as_challenger=True, keep=1)
    for release in releases[2:]:
        import_release(released, release, keep=1)
    # 1 was active before 3, and neither before 5; 2 is challenger, 4 the previous one, 5 active.
    assert versions() == {STORE_NETWORK: ["2", "4", "5"], STORE_TREES: ["2", "4", "5"]}


def test_a_pair_that_a_service_holds_is_never_deleted(released):
    copy_release(released, times=3)
    releases = released.releases()
    import_release(released, releases[0], keep=1)
    with (store_folder() / STORE_NETWORK / "1" / "model.yaml").open() as file:
        folder = os.open(store_folder() / STORE_TREES / "1", os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_SH)
        for release in releases[1:]:
            import_release(released, release, keep=1)
        assert versions()[STORE_NETWORK] == ["1", "3", "4"]
        os.close(folder)
        import_release(released, releases[1], keep=1)
        assert file.readable()
    assert versions()[STORE_NETWORK] == ["2", "4"]


def test_what_a_killed_copy_left_is_removed_and_breaks_nothing(released):
    copy_release(released)
    first, second = released.releases()
    import_release(released, first)
    (store_folder() / STORE_NETWORK / "2" / "mlflow_model").mkdir(parents=True)  # no model.yaml yet
    torn = store_folder() / STORE_TREES / "0"
    torn.mkdir()
    (torn / "model.yaml").write_text("name: fraud_xg")
    assert active_pair().release == "1"
    assert import_release(released, second)[0].version == "2"
    assert versions() == {STORE_NETWORK: ["1", "2"], STORE_TREES: ["1", "2"]}
    assert not torn.exists()


@pytest.mark.parametrize("fails_at", [1, 2])
def test_interrupted_import_leaves_the_active_pair_alone(released, monkeypatch, fails_at):
    copy_release(released)
    first, second = released.releases()
    import_release(released, first)
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        return importing(*args, **kwargs)

    importing = bentoml.mlflow.import_model
    monkeypatch.setattr(bentoml.mlflow, "import_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_release(released, second)
    assert active_pair().release == "1"
    assert versions() == {STORE_NETWORK: ["1"], STORE_TREES: ["1"]}
    monkeypatch.undo()


def test_half_of_a_killed_import_never_counts_and_is_removed(released, monkeypatch):
    copy_release(released)
    first, second = released.releases()
    import_release(released, first)
    before = record()
    import_release(released, second)
    # As if the process was killed before the trees came.
    bentoml.models.delete(f"{STORE_TREES}:2")
    write_record(store_folder(), before)
    assert active_pair().release == "1"
    assert remove_halves() == [f"{STORE_NETWORK}:2"]
    assert import_release(released, second)[0].version == "2"
    assert active_pair().release == "2"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (STORE_TREES, "model.ubj"),
        (STORE_TREES, "reference.json"),
        (STORE_NETWORK, "extra_files/model.onnx"),
        (STORE_NETWORK, "extra_files/attribution.onnx"),
    ],
)
def test_store_that_lost_files_is_imported_anew(released, name, file):
    release = released.release("1")
    import_release(released, release)
    (model_folder(name, "1") / file).unlink()
    pair, imported = import_release(released, release)
    assert imported
    assert pair.version == "1-2"


@pytest.mark.parametrize(
    ("name", "file"), [(STORE_TREES, "model.ubj"), (STORE_NETWORK, "extra_files/model.onnx")]
)
def test_store_whose_files_are_damaged_is_imported_anew(released, name, file):
    release = released.release("1")
    import_release(released, release)
    (model_folder(name, "1") / file).write_bytes(b"damaged")
    assert import_release(released, release)[0].version == "1-2"
    assert active_pair().version == "1-2"


def test_model_that_scores_differently_is_refused_before_it_is_stored(released, monkeypatch):
    scores = store._tree_scores
    monkeypatch.setattr(store, "_tree_scores", lambda *args: scores(*args) + np.float32(1e-4))
    with pytest.raises(StoreError, match="does not score the reference batch as when it was trained"):
        import_release(released, released.release("1"))
    assert active_pair() is None
    assert versions() == {STORE_NETWORK: [], STORE_TREES: []}


@pytest.fixture
def fetching(released, monkeypatch):
    """Return a function that has the files of a registered model changed on their way to the store."""
    fetch = released.fetch_model

    def change(name, how):
        def fetched(registered, *arguments):
            folder = fetch(registered, *arguments)
            if registered == name:
                how(folder)
            return folder

        monkeypatch.setattr(released, "fetch_model", fetched)

    return change


@pytest.mark.parametrize(
    ("registered", "file"),
    [
        ("fraud-neural-net", "extra_files/model.onnx"),
        ("fraud-neural-net", "extra_files/attribution.onnx"),
        ("fraud-xgboost", "model.ubj"),
    ],
)
def test_registered_model_that_lost_a_file_is_named(released, fetching, registered, file):
    fetching(registered, lambda folder: (folder / file).unlink())
    with pytest.raises(StoreError, match=f"{registered} 1 has lost {file}: train again"):
        import_release(released, released.release("1"))
    assert versions() == {STORE_NETWORK: [], STORE_TREES: []}


@pytest.mark.parametrize(
    ("registered", "file"),
    [("fraud-neural-net", "extra_files/model.onnx"), ("fraud-xgboost", "model.ubj")],
)
def test_registered_model_that_is_damaged_is_named(released, fetching, registered, file):
    fetching(registered, lambda folder: (folder / file).write_bytes(b"damaged"))
    with pytest.raises(StoreError, match=f"{registered} 1 cannot be loaded"):
        import_release(released, released.release("1"))


def test_registered_model_whose_folder_is_gone_is_named(released, tmp_path, monkeypatch):
    import mlflow

    def gone(*_args, **_options):
        raise FileNotFoundError("no such folder")

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", gone)
    with pytest.raises(RegistryError, match="version 1 of fraud-xgboost has lost its files"):
        released.fetch_model("fraud-xgboost", "1", tmp_path / "into")


def test_missing_store_version_is_named(released):
    with pytest.raises(StoreError, match="fraud_xgboost:9 is not in the BentoML model store"):
        model_folder(STORE_TREES, "9")


def test_stores_that_share_only_their_models_share_the_lock(released, tmp_path, monkeypatch):
    """As containers do: the home is each one's own, the folder of the models is a volume."""
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.2)
    shared = tmp_path / "volume"
    shared.mkdir()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "models").symlink_to(shared)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "one"))
    with store._locked():
        monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "other"))
        with pytest.raises(StoreError, match="another import"), store._locked():
            pass
    assert not list(shared.iterdir())


def test_one_import_at_a_time(released, monkeypatch):
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.2)
    with store._locked(), pytest.raises(StoreError, match="another import"):
        import_release(released, released.release("1"))
