"""What is written must hold: README commands exist and run, every setting is explained where it is set."""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""
SETTINGS = ("training", "serving", "streaming")
SETTINGS_MODULE = {
    "training": "training.settings.load",
    "serving": "bentos.settings.load",
    "streaming": "streaming.settings.load",
}


def readme_commands() -> list[str]:
    """Return the command lines of the README's shell blocks, joined where a line goes on."""
    blocks = re.findall(r"```(?:bash|sh|shell)\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [
        line.split("  #")[0].strip() for line in lines if line.strip() and not line.lstrip().startswith("#")
    ]


def words(command: str) -> list[str]:
    return [word for word in shlex.split(command) if word != ".venv/bin/python"]


@pytest.mark.parametrize("command", [c for c in readme_commands() if c.startswith("make ")])
def test_make_targets_of_the_readme_exist(command: str) -> None:
    done = subprocess.run(
        ["make", "-n", *words(command)[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def module_commands() -> list[tuple[str, ...]]:
    found = {
        tuple(re.findall(r"python -m (training|streaming) ([a-z-]+)", command)[0])
        for command in readme_commands()
        if re.search(r"python -m (training|streaming) [a-z]", command)
    }
    return sorted(found)


@pytest.mark.parametrize("command", module_commands(), ids=" ".join)
def test_module_commands_of_the_readme_run(command: tuple[str, str]) -> None:
    """``--help`` of each runs, and knows every flag that the README gives it."""
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        cwd=ROOT,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in readme_commands():
        if f"python -m {' '.join(command)}" in line:
            for flag in re.findall(r"\s(--[a-z-]+)", line):
                assert flag in done.stdout, line


def test_the_readme_holds_the_two_commands() -> None:
    commands = readme_commands()
    assert "make demo" in commands
    assert "make test" in commands


def settings_class(name: str) -> type[BaseModel]:
    settings: type[BaseModel] = importlib.import_module(SETTINGS_MODULE[name]).Settings
    return settings


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, (*path, name))
        else:
            yield (*path, name), field


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_says_what_it_does(name: str) -> None:
    for path, field in leaves(settings_class(name)):
        assert field.description, ".".join(path)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_stands_in_its_file(name: str) -> None:
    """A user finds each setting with its default in ``configs/``; the two agree."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    for path, _ in leaves(settings_class(name)):
        node: Any = document
        for key in path:
            assert isinstance(node, dict) and key in node, (
                f"{'.'.join(path)} is missing in configs/{name}.yaml"
            )
            node = node[key]


def test_the_changelog_names_the_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert version is not None
    assert f"## {version.group(1)}" in (ROOT / "CHANGELOG.md").read_text()
