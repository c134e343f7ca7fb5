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


@pytest.mark.parametrize(("package", "place"), [("kafka", "broker/"), ("httpx", "scoring/client.py")])
def test_one_place_speaks_each_protocol(package: str, place: str) -> None:
    speakers = {str(path.relative_to(ROOT / "streaming")) for path in FILES if package in _imports(path)}
    assert speakers
    assert all(name.startswith(place) for name in speakers), speakers


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 45, f"{node.name} has {lines} lines"


def test_the_verifier_shares_nothing_with_the_bridge() -> None:
    assert not {"streaming", "kafka"} & _imports(ROOT / "tests" / "e2e" / "verifier.py")
