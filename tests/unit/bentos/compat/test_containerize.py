"""``bentoml containerize`` with the project's own Dockerfile template: the way round BentoML's defect."""

import copy
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from bentoml._internal.utils.filesystem import resolve_user_filepath

from bentos.compat import containerize
from bentos.compat.containerize import _bentoml_command, _inside_project, containerize_command


def test_bentoml_finds_the_command() -> None:
    found = [point for point in entry_points(group="bentoml.commands") if point.name == "containerize"]
    assert [point.load() for point in found] == [containerize_command]
    assert containerize_command.name == "containerize"
    assert containerize_command.params == _bentoml_command.params


def test_the_defect_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, BentoML has mended it: bentos/compat/containerize.py and its entry point can go."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "Dockerfile.template").touch()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(ValueError, match="outside of current working directory"):
        resolve_user_filepath("Dockerfile.template", str(tmp_path / "elsewhere"))


def test_temporary_folders_are_made_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = tempfile.gettempdir()

    def build(tag: str) -> tuple[str, Path]:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Dockerfile.template").touch()
            resolve_user_filepath("Dockerfile.template", folder)  # raises where it is refused
            return tag, Path(folder)

    tag, folder = _inside_project(build)("fraud_detection:latest")
    assert tag == "fraud_detection:latest"
    assert folder.is_relative_to(tmp_path / "build")
    assert not folder.parent.exists()
    assert tempfile.gettempdir() == before


def test_what_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = tempfile.gettempdir()

    def build() -> None:
        raise RuntimeError("no engine")

    with pytest.raises(RuntimeError, match="no engine"):
        _inside_project(build)()
    assert tempfile.gettempdir() == before
    assert list((tmp_path / "build").iterdir()) == []


def test_a_command_that_cannot_be_wrapped_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = copy.copy(_bentoml_command)
    changed.callback = None
    monkeypatch.setattr(containerize, "_bentoml_command", changed)
    with pytest.raises(click.ClickException, match=r"^bentoml [0-9.]+ does not fit"):
        containerize_command.callback(bento_tag="fraud_detection:latest")
