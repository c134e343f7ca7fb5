"""What is written must hold: commands run, paths are there, settings are explained where they are set."""

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
DOCUMENTS = tuple(
    sorted(
        [
            ROOT / "README.md",
            ROOT / "CONTRIBUTING.md",
            *ROOT.glob("docs/*.md"),
            *ROOT.glob("configs/*/README.md"),
        ]
    )
)
README_WORDS = 1000  # about 900; what says more belongs into docs/
SETTINGS = ("training", "serving", "streaming")
SETTINGS_MODULE = {
    "training": "training.settings.load",
    "serving": "bentos.settings.load",
    "streaming": "streaming.settings.load",
}


def shell_commands(document: Path) -> list[str]:
    """Return the command lines of a document's shell blocks, joined where a line goes on."""
    blocks = re.findall(r"```(?:bash|sh|shell)\n(.*?)```", document.read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [
        line.split("  #")[0].strip() for line in lines if line.strip() and not line.lstrip().startswith("#")
    ]


def inline_commands(document: Path) -> list[str]:
    """Return what stands between backticks in the prose and the tables."""
    prose = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def documented_commands() -> list[str]:
    """Return every command of every document."""
    return [command for path in DOCUMENTS for command in (*shell_commands(path), *inline_commands(path))]


def words(command: str) -> list[str]:
    return [word for word in shlex.split(command) if word != ".venv/bin/python"]


def make_commands() -> list[str]:
    """Return each ``make`` of the documents once, without what follows it on the line."""
    found = (re.match(r"make( [a-z0-9-]+)+( [A-Z]+=[^ ]+)*", command) for command in documented_commands())
    return sorted({match[0] for match in found if match})


@pytest.mark.parametrize("command", make_commands())
def test_make_targets_of_the_documents_exist(command: str) -> None:
    done = subprocess.run(
        ["make", "-n", *words(command)[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def module_commands() -> list[tuple[str, ...]]:
    found = {
        match
        for command in documented_commands()
        for match in re.findall(r"python -m (training|streaming) ([a-z-]+)", command)
        if not match[1].startswith("-")
    }
    return sorted(found)


@pytest.mark.parametrize("command", module_commands(), ids=" ".join)
def test_module_commands_of_the_documents_run(command: tuple[str, str]) -> None:
    """``--help`` of each runs, and knows every flag that the documents give it."""
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        cwd=ROOT,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in documented_commands():
        for own in re.findall(rf"python -m {' '.join(command)}\b([^|&;]*)", line):
            for flag in re.findall(r"\s(--[a-z-]+)", own):
                assert flag in done.stdout, line


def test_benchmarks_of_the_documents_exist() -> None:
    named = {name for c in documented_commands() for name in re.findall(r"python -m benchmarks\.(\w+)", c)}
    assert named >= {"quality", "score", "serving", "streaming"}
    assert not [name for name in named if not (ROOT / "benchmarks" / f"{name}.py").is_file()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_of_a_document_exist(document: Path) -> None:
    """Relative links lead somewhere; a path of the project between backticks is there."""
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (document.parent / target).exists(), target
    roots = "bentos|training|streaming|configs|tests|benchmarks|demo|docs"
    for path in re.findall(rf"`((?:{roots})/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_readme_is_short_and_holds_the_two_commands() -> None:
    readme = ROOT / "README.md"
    assert {"make demo", "make test"} <= set(shell_commands(readme))
    assert len(readme.read_text().split()) <= README_WORDS


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
