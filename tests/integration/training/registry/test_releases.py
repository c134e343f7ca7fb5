import os
import shutil
import sqlite3

import pytest

from tests.training_fixtures import THIRD_PARTY_WARNINGS, copy_release, record
from training.errors import RegistryError
from training.registry.releases import CHALLENGER, CHAMPION, NETWORK, RELEASE, TREES, Registry

pytestmark = THIRD_PARTY_WARNINGS


def champions(registry):
    return {name: str(registry._aliases(name).get(CHAMPION)) for name in (NETWORK, TREES, RELEASE)}


def test_empty_registry_has_no_champion(registry):
    assert registry.champion() is None
    assert registry.releases() == []
    with pytest.raises(RegistryError, match="alias champion: train one with"):
        registry.require_champion()
    with pytest.raises(RegistryError, match="no earlier release"):
        registry.rollback()


def test_promotion_moves_everything_and_rollback_moves_it_back(released):
    copy_release(released, 2)
    first, second, third = released.releases()
    released.set_challenger(first)
    assert list(released._aliases(RELEASE)) == [CHALLENGER]
    for release in (first, second, third):
        released.promote(release)
        assert champions(released) == {
            NETWORK: release.network_version,
            TREES: release.trees_version,
            RELEASE: release.number,
        }
    assert released.history() == ["1", "2", "3"]
    assert CHALLENGER not in released._aliases(RELEASE)
    assert released.rollback().number == "2"
    assert released.rollback().number == "1"
    assert champions(released)[NETWORK] == first.network_version
    with pytest.raises(RegistryError, match="no earlier release"):
        released.rollback()
    released.promote(third)
    assert released.rollback().number == "1"


def test_rollback_passes_over_a_release_that_was_deleted(released):
    copy_release(released, 3)
    for release in released.releases():
        released.promote(release)
    for number in ("2", "3"):
        released.client.delete_model_version(RELEASE, number)
    assert released.rollback().number == "1"
    assert released.history() == ["1"]
    released.promote(released.release("4"))
    released.client.delete_model_version(RELEASE, "1")
    with pytest.raises(RegistryError, match="no earlier release"):
        released.rollback()
    assert released.require_champion().number == "4"


def test_promoting_the_champion_again_changes_nothing(released):
    first = released.release("1")
    released.promote(first)
    released.promote(first)
    assert released.history() == ["1"]


def test_interrupted_promotion_leaves_the_old_champion_whole(released, monkeypatch):
    copy_release(released)
    first, second = released.releases()
    released.promote(first)
    monkeypatch.setattr(released, "_set_alias", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        released.promote(second)
    monkeypatch.undo()
    assert released.require_champion().number == "1"
    assert released.history() == ["1"]
    released.promote(second)
    assert released.history() == ["1", "2"]
    assert released.rollback().number == "1"


def test_aliases_that_were_left_behind_are_put_right_by_the_next_promotion(released, monkeypatch):
    copy_release(released)
    first, second = released.releases()
    released.promote(first)
    monkeypatch.setattr(released, "_follow", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        released.promote(second)
    monkeypatch.undo()
    assert released.require_champion().number == "2"
    assert champions(released)[NETWORK] == first.network_version  # reading repairs nothing
    released.promote(second)
    assert champions(released)[NETWORK] == second.network_version


def test_a_deleted_component_bricks_nothing_but_what_needs_it(released, tmp_path):
    first = released.release("1")
    released.promote(first)
    released.client.delete_registered_model_alias(NETWORK, CHAMPION)
    released.client.delete_model_version(NETWORK, first.network_version)
    assert released.require_champion().number == "1"
    assert [release.number for release in released.releases()] == ["1"]
    assert (released.fetch(released.release("1"), tmp_path) / "model.onnx").is_file()  # enough to score
    with pytest.raises(RegistryError, match="version 1 of fraud-neural-net has lost its files"):
        released.fetch_model(NETWORK, first.network_version, tmp_path / "network")
    released.promote(first)  # the alias of what is gone is left out


def test_alias_and_gate_stand_on_the_runs_that_are_compared(released, tmp_path):
    first = released.release("1")
    released.set_tag(first, "gate", "passed: for this test")
    released.promote(first)
    tags = released.client.get_run(first.run_id).data.tags
    assert (tags["alias"], tags["gate"]) == ("champion", "passed: for this test")


def test_moved_registry_finds_its_artefacts(small_training, empty_database, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new folder"
    old.mkdir()
    shutil.copy(empty_database, old / "mlflow.db")
    record(Registry(f"sqlite:///{old}/mlflow.db"), small_training)
    old.rename(new)
    moved = Registry(f"sqlite:///{new}/mlflow.db")
    (tmp_path / "files").mkdir()
    assert (moved.fetch(moved.release("1"), tmp_path / "files") / "release.json").is_file()
    assert record(moved, small_training).number == "2"
    assert not old.exists()


def test_registry_of_its_own_is_where_mlflow_is_told_it_is(tmp_path, empty_database, monkeypatch):
    tracking, models = (f"sqlite:///{tmp_path}/{name}.db" for name in ("tracking", "models"))
    for name in ("tracking", "models"):
        shutil.copy(empty_database, tmp_path / f"{name}.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", models)
    Registry(tracking).client.create_registered_model(RELEASE)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    known = [bool(Registry(uri).client.search_registered_models()) for uri in (models, tracking)]
    assert known == [True, False]


def test_version_without_its_parts_is_no_release(released):
    source = released.client.get_model_version(RELEASE, "1").source
    released.register(RELEASE, source, "", {"data": "half done"})
    assert [release.number for release in released.releases()] == ["1"]
    with pytest.raises(RegistryError, match="there is no release 2; `python -m training releases`"):
        released.release("2")


def test_release_that_lost_its_files_is_named(released, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda *_, **__: str(tmp_path / "nothing"))
    with pytest.raises(RegistryError, match="release 1 has lost its files"):
        released.fetch(released.release("1"), tmp_path)


def test_registry_that_is_down_is_named_within_seconds(free_port, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(RegistryError, match=r"cannot be reached: start it or set MLFLOW_TRACKING_URI"):
        Registry(f"http://127.0.0.1:{free_port()}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_database_that_cannot_be_opened(tmp_path):
    with pytest.raises(RegistryError):
        Registry(f"sqlite:///{tmp_path}/no/such/folder/mlflow.db")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://mlflow:s3cr@t/@127.0.0.1:{port}", "http://***@127.0.0.1:{port}"),
        ("http://127.0.0.1:{port}/?password=s3cret", "http://127.0.0.1:{port}/?password=***"),
    ],
)
def test_credentials_are_in_no_error(free_port, monkeypatch, address, shown):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = free_port()
    with pytest.raises(RegistryError) as caught:
        Registry(address.format(port=port))
    assert shown.format(port=port) in str(caught.value)
    assert "s3cr" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Query string argument")  # SQLite has no passwords
def test_credentials_are_in_no_message_of_the_registry(published):
    registry = Registry(f"sqlite:///{published}/mlflow.db?password=s3cret")
    with pytest.raises(RegistryError, match=r"password=\*\*\*") as caught:
        registry.require_champion()
    assert "s3cret" not in str(caught.value)


def test_locked_database_is_named(published):
    path = published / "mlflow.db"
    holder = sqlite3.connect(path, timeout=0.1)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(RegistryError, match="locked by another process"):
            Registry(f"sqlite:///{path}?timeout=0.2")
    finally:
        holder.close()
