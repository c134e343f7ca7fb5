"""What every area's tests share: a broker, a release made by the real training, a served bento."""

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

from demo.brokers import Broker, open_broker
from demo.ports import HOST, choose_port
from demo.processes import Process

# The suite runs on busy machines too: a slow draw says nothing about the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

pytest_plugins = [
    f"tests.{area}_fixtures"
    for area in ("training", "serving", "streaming")
    if importlib.util.find_spec(f"tests.{area}_fixtures")
]


@pytest.fixture(autouse=True)
def bentoml_log_is_seen() -> Iterator[None]:
    """Let caplog see BentoML's logger, which one test's service would cut off or silence for all after it."""
    logger = logging.getLogger("bentoml")
    before = logger.propagate, logger.level
    logger.propagate = True
    logger.setLevel(logging.INFO)
    yield
    logger.propagate = before[0]
    logger.setLevel(before[1])


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a function that gives a free port of the loopback address, another one each time."""
    taken: set[int] = set()

    def free() -> int:
        port = choose_port(0, taken | {0})
        taken.add(port)
        return port

    return free


@pytest.fixture(scope="session")
def session_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Yield one broker for the whole session; topics and groups are fresh per test."""
    with open_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def broker(session_broker: Broker) -> str:
    """Return the bootstrap address of a running broker."""
    return session_broker.address


@pytest.fixture
def genuine_broker(session_broker: Broker) -> str:
    """Return the bootstrap address of a genuine Kafka broker; skip where there is none."""
    if not session_broker.is_genuine:
        pytest.skip("needs genuine Kafka (KAFKA_HOME): the embedded broker shows aborted records")
    return session_broker.address


@pytest.fixture(scope="session")
def release_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train, promote and import a small release; return the folder with ``bentoml/`` and ``mlflow.db``.

    Made by the public commands on simulated data, so the suite serves what a user would serve. With
    ``TEST_RELEASE_HOME`` set it is made once in that folder and used again by later runs: quicker while
    working on something else than training.
    """
    kept = os.environ.get("TEST_RELEASE_HOME")
    home = Path(kept) if kept else tmp_path_factory.mktemp("release")
    if (home / "held_out.parquet").is_file():
        return home
    home.mkdir(parents=True, exist_ok=True)
    data = home / "transactions.parquet"
    run_command("training", "simulate", "--rows", "20000", "--seed", "7", "--output", str(data), home=home)
    run_command(
        *("training", "train", "--data", str(data), "--protocol", "temporal", "--epochs", "4"),
        *("--held-out", str(home / "held_out.parquet"), "--force"),  # too few frauds to be judged
        home=home,
    )
    return home


@pytest.fixture(scope="session")
def served_bento(release_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the release as a user would, with ``bentoml serve``; yield the base URL."""
    port = choose_port(3000)
    command = [str(BIN / "bentoml"), "serve", "--host", HOST, "--port", str(port)]
    log = tmp_path_factory.mktemp("service") / "service.log"
    with Process("The service", command, log, env=home_variables(release_home), cwd=ROOT) as process:
        url = f"http://{HOST}:{port}"
        process.wait_ready(lambda: answers_ready(url), timeout_s=120)
        yield url


def home_variables(home: Path) -> dict[str, str]:
    """Return the variables that make every command use the registry and the model store in `home`."""
    return {
        "BENTOML_HOME": str(home / "bentoml"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        "BENTOML_DO_NOT_TRACK": "True",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }


def run_command(package: str, *arguments: str, home: Path) -> None:
    """Run ``python -m package arguments`` against `home`; a failure shows what the command said."""
    log = home / f"{package}-{arguments[0]}.log"
    with Process(
        package, [sys.executable, "-m", package, *arguments], log, home_variables(home), ROOT
    ) as process:
        try:
            process.wait_done()
        except Exception as error:
            raise AssertionError(log.read_text()) from error


def answers_ready(url: str) -> bool:
    """Say whether the service at `url` answers 200 at ``/readyz``."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
