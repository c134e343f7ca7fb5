"""Built, containerized, run: the bento's image against its budgets; the alerts by Prometheus itself."""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT, home_variables
from tests.e2e import engine
from tests.e2e.engine import Container, docker, say, wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(2400)]

TAG = "fraud_detection:containers-test"
# Of the image above its base, MB; and of the start, s, on a machine that has nothing else to do.
SIZE_BUDGET_MB, START_BUDGET_S = 450, 5
UNWANTED = ("torch", "mlflow", "nvidia", "pip", "sklearn", "pandas", "pyarrow", "matplotlib")


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    if engine.find_docker() is None:
        pytest.skip("needs a Docker engine, and a client that can build with it")


@pytest.fixture(scope="module")
def image(release_home: Path) -> str:
    """Return the bento's image, built by the public commands."""
    return engine.build_bento(home_variables(release_home), TAG)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    """Yield the bento's image as it runs in a cluster."""
    container = Container(image, _port())
    yield container
    container.remove()


def _port() -> int:
    from demo.ports import choose_port

    return choose_port(0, {0})


def test_image_is_small_and_holds_no_tools(image: str) -> None:
    above = engine.size_mb(image) - engine.size_mb(engine.BASE_IMAGE)
    say(f"image of the bento: {above:.0f} MB above {engine.BASE_IMAGE}")
    assert above <= SIZE_BUDGET_MB
    script = (
        "import os, shutil, json, sys;"
        "packages = os.listdir(next(path for path in sys.path if 'site-packages' in path));"
        "tools = [tool for tool in ('gcc', 'cc', 'git', 'nvcc') if shutil.which(tool)];"
        "print(json.dumps([os.getuid(), packages, tools]))"
    )
    uid, packages, tools = json.loads(docker("run", "--rm", "--entrypoint", "python", image, "-c", script))
    assert uid != 0
    assert not tools
    assert not [name for name in packages if name.split("-")[0].split(".")[0] in UNWANTED]


def test_it_starts_quickly(container: Container) -> None:
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    say(f"cold start: {container.ready_after_s:.1f} s (load {load:.1f} a core)")
    assert container.ready_after_s <= START_BUDGET_S * max(1.0, 2 * load)


def test_it_answers_like_the_service_outside(
    container: Container, served_bento: str, transactions: list[dict[str, Any]]
) -> None:
    inside, outside = (
        httpx.post(f"{url}/classify", json=transactions, timeout=30).json()
        for url in (container.url, served_bento)
    )
    assert len(inside) == len(transactions)
    for ours, theirs in zip(inside, outside, strict=True):
        assert {k: v for k, v in ours.items() if k not in ("scores", "fraud_probability")} == {
            k: v for k, v in theirs.items() if k not in ("scores", "fraud_probability")
        }
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-6)
        assert ours["fraud_probability"] == pytest.approx(theirs["fraud_probability"], abs=1e-6)
    one = httpx.post(f"{container.url}/classify", json=transactions[0], timeout=30).json()
    assert one["decision"] == inside[0]["decision"]


def test_the_engine_finds_it_healthy(container: Container) -> None:
    wait_until(
        lambda: engine.inspect(container.name)["State"]["Health"]["Status"] == "healthy", 60, "healthy"
    )


def test_sigterm_drains(image: str, transactions: list[dict[str, Any]]) -> None:
    container = Container(image, _port())
    outcomes: Counter[str] = Counter()

    def ask() -> None:
        # Reasons take long: every caller's request is under way when the signal comes.
        url = f"{container.url}/classify?explain=true"
        outcomes[str(httpx.post(url, json=transactions, timeout=60).status_code)] += 1

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(1)
    began = time.monotonic()
    docker("stop", "-t", "20", container.name)
    took = time.monotonic() - began
    for caller in callers:
        caller.join(60)
    code = engine.inspect(container.name)["State"]["ExitCode"]
    container.remove()
    say(f"stopped in {took:.1f} s with {code}, answers {dict(outcomes)}")
    assert code == 0
    assert took < 15
    assert outcomes == {"200": len(callers)}


@pytest.mark.parametrize("command", ["check config prometheus.yml", "test rules alerts_test.yml"])
def test_prometheus_accepts_configuration_and_rules(command: str) -> None:
    if missing := engine.find_missing_image():
        pytest.skip(f"{missing} is not here and cannot be pulled")
    mount = f"{ROOT / 'configs' / 'prometheus'}:/work:ro"
    docker(
        *("run", "--rm", "-v", mount, "-w", "/work", "--entrypoint", "promtool", engine.OTHERS[-1]),
        *command.split(),
    )
