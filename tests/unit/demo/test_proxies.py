"""A proxy for the internet is never asked for what runs beside us, nor shown a transaction."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CALLS = ("Client", "AsyncClient", "get", "post", "request", "stream")


def calls_of_httpx(module: Path) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr in CALLS) == ("httpx", True)
    ]


@pytest.mark.parametrize("package", ["demo", "streaming"])
def test_every_request_ignores_the_variables_of_proxies(package: str) -> None:
    """HTTP_PROXY made the demo ask a proxy for 127.0.0.1; a socks proxy ended it with a traceback."""
    found = [(module, call) for module in (ROOT / package).rglob("*.py") for call in calls_of_httpx(module)]
    assert found
    for module, call in found:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        value = given.get("trust_env")
        assert isinstance(value, ast.Constant) and value.value is False, f"{module}:{call.lineno}"
