"""The promises of the package's shape."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "streaming").rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    ("package", "places"), [("kafka", ("broker/",)), ("httpx", ("scoring/client.py", "monitor/promises.py"))]
)
def test_one_place_speaks_each_protocol(package: str, places: tuple[str, ...]) -> None:
    speakers = {str(path.relative_to(ROOT / "streaming")) for path in FILES if package in _imports(path)}
    assert speakers
    assert all(name.startswith(places) for name in speakers), speakers


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 45, f"{node.name} has {lines} lines"


# Each folder imports only what stands before it; modules beside the folders are what all may import.
FOLDERS = (
    "settings",
    "broker",
    "observability",
    "scoring",
    "bridge",
    "reprocessing",
    "replay",
    "labels",
    "monitor",
    "commands",
)
# Settings and secrets are read by what builds the parts; these are the bottom of the package.
BASE = {"errors", "records", "ports", "output_records", "daemon_pool", "bridge_state"}


def _parts_imported(path: Path) -> set[str]:
    """Return the folders and modules of the package that a module names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("streaming."):
            found.add((node.module or "").split(".")[1])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_leads_upwards(path: Path) -> None:
    parts = path.relative_to(ROOT / "streaming").parts
    imported = _parts_imported(path)
    if len(parts) == 1 and path.stem != "__main__":
        assert path.stem in {*BASE, "__init__"}, f"{path.stem} belongs into a folder"
        assert imported <= BASE
    elif len(parts) > 1:
        assert imported <= BASE | set(FOLDERS[: FOLDERS.index(parts[0]) + 1])


def test_no_module_is_part_of_a_circle() -> None:
    graph = {}
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        graph[name] = {n.module for n in nodes if n.module and n.module.startswith("streaming.")}
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys() - {name}]:
        for name in leaves:
            del graph[name]
    assert not graph


def test_folders_stay_small() -> None:
    for folder in {path.parent for path in FILES}:
        assert len(list(folder.glob("*.py"))) <= 15, folder


def test_the_verifier_shares_nothing_with_the_bridge() -> None:
    assert not {"streaming", "kafka"} & _imports(ROOT / "tests" / "e2e" / "verifier.py")
