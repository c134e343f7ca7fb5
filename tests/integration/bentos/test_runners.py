"""A runner's socket answers what the gateway sends, and nothing else: BentoML's own routes take pickles."""

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import numpy as np
import pytest

from tests.integration.bentos.test_faults import runner
from tests.serving_fixtures import Served

ROWS = np.zeros((2, 30), "<f4")
PICKLED = "application/vnd.bentoml+pickle"


class Trap:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._marker),))


def socket_of(served: Served, name: str) -> str:
    """Return the path of the unix socket on which a runner listens."""
    addresses = json.loads(runner(served, name).environ()["BENTOML_RUNNER_MAP"])
    return unquote(urlsplit(addresses[name]).path)


@pytest.fixture(params=["NeuralNetRunner", "XGBoostRunner"])
def direct(served: Served, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """Return a client of a runner, past the gateway."""
    transport = httpx.HTTPTransport(uds=socket_of(served, request.param))
    with httpx.Client(transport=transport, base_url="http://runner", timeout=20) as client:
        yield client


def test_what_the_gateway_sends_is_answered(direct: httpx.Client) -> None:
    for path, columns in (("/score/7", 1), ("/contributions/7", 31)):
        answer = direct.post(path, content=ROWS.tobytes())
        assert (answer.status_code, len(answer.content)) == (200, 2 * columns * 4)
    assert direct.get("/ready/7").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", path) for path in ("/score", "/contributions", "/", "/ready/7", "/readyz", "/livez")),
        *(("POST", path) for path in ("/__batch__/score", "/classify", "//score/7", "/x/score/7")),
        *(("GET", path) for path in ("/", "/metrics", "/docs.json", "/schema.json", "/score", "/nonsense")),
        *(("GET", path) for path in ("/score/7", "/contributions/7", "/ready", "/static_content/index.css")),
        *((method, "/score/7") for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")),
    ],
)
def test_everything_else_is_404(direct: httpx.Client, method: str, path: str) -> None:
    body = ROWS.tobytes() if method == "POST" else None
    answer = direct.request(method, path, content=body)
    assert (answer.status_code, answer.content) == (404, b"")


@pytest.mark.parametrize("path", ["/score", "/contributions", "/score/7", "/contributions/7"])
def test_a_pickle_is_never_opened(direct: httpx.Client, tmp_path: Path, path: str) -> None:
    body = pickle.dumps(Trap(tmp_path / "opened"))
    pickle.loads(body)
    (tmp_path / "opened").rmdir()  # was there: the trap works
    answer = direct.post(
        path, content=body, headers={"content-type": PICKLED, "payload-container": "Default"}
    )
    assert answer.status_code >= 400
    assert not (tmp_path / "opened").exists()


def test_a_websocket_is_refused(direct: httpx.Client) -> None:
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert direct.get("/score/7", headers=upgrade).status_code in (403, 404)
