# ruff: noqa: T201  # seed and figures are the point
"""The long fault tests of a change of releases: a real release, real commands, killed at random."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from demo.processes import Process
from tests.conftest import BIN, HOST, ROOT, answers_ready, choose_port, home_variables, run_command
from tests.training_fixtures import THIRD_PARTY_WARNINGS

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(600), *THIRD_PARTY_WARNINGS]

FEATURES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
TRAIN = ("train", "--epochs", "2", "--force")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two releases; the second is active."""
    home = tmp_path_factory.mktemp("swap")
    data = str(home / "transactions.parquet")
    run_command("training", "simulate", "--rows", "20000", "--seed", "7", "--output", data, home=home)
    for seed in ("1", "2"):
        run_command("training", *TRAIN, "--data", data, "--seed", seed, home=home)
    return home


@pytest.fixture
def url(home: Path, tmp_path: Path) -> Iterator[str]:
    """Serve the store."""
    port = choose_port(3600)
    command = [str(BIN / "bentoml"), "serve", "--host", HOST, "--port", str(port)]
    with Process("The service", command, tmp_path / "service.log", home_variables(home), ROOT) as process:
        process.wait_ready(lambda: answers_ready(f"http://{HOST}:{port}"), timeout_s=90)
        yield f"http://{HOST}:{port}"


class Asking:
    """Asks in the background; notes what is not 200 or not whole."""

    def __init__(self, url: str) -> None:
        self._url, self._is_over = url, threading.Event()
        self.answers, self.faults = 0, []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        rows = [dict.fromkeys(FEATURES, 0.5)] * 50
        with httpx.Client(timeout=20) as client:
            while not self._is_over.is_set():
                answer = client.post(f"{self._url}/classify", json=rows)
                self.answers += 1
                if answer.status_code != 200:
                    self.faults.append(f"{answer.status_code} {answer.text[:200]}")
                elif len({(row["release"], *row["models"].values()) for row in answer.json()}) > 1:
                    self.faults.append("mixed")


def served(url: str) -> str:
    return str(httpx.get(f"{url}/info", timeout=10).json()["release"])


def wait_until_served(url: str, release: str, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while served(url) != release:
        assert time.monotonic() < deadline, f"{served(url)} is served, not {release}"
        time.sleep(0.05)


def record(home: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((home / "bentoml" / "models" / "releases.json").read_text())
    return document


def test_promotions_killed_anywhere_leave_a_service_that_serves_and_are_done_by_the_next(
    home: Path, url: str
) -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"SEED={seed}")
    draw = random.Random(seed)
    with Asking(url) as asking:
        for number in range(12):
            target = "12"[number % 2]
            # Imported anew half of the time, so that the copy into the store is killed too.
            if number % 4 == 0:
                forget(home, target)
            command = [sys.executable, "-m", "training", "promote", target, "--force"]
            promote = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **home_variables(home)}, stderr=subprocess.DEVNULL
            )
            time.sleep(draw.uniform(0.5, 8.0))
            promote.send_signal(signal.SIGKILL)
            promote.wait()
            assert record(home)["active"]["release"] in ("1", "2")
            assert answers_ready(url)
    assert asking.faults == []
    assert asking.answers > 100
    run_command("training", "promote", "1", "--force", home=home)
    wait_until_served(url, "1")
    assert record(home)["active"]["release"] == "1"


def forget(home: Path, release: str) -> None:
    """Make the store's pair of a release that is not served look damaged, so that it is imported anew."""
    active = record(home)["active"]
    if active["release"] != release:
        for path in (home / "bentoml" / "models" / "fraud_xgboost").glob(
            f"{release}*/mlflow_model/reference.json"
        ):
            path.unlink()


def test_a_full_disk_stops_the_import_and_nothing_else(home: Path, url: str) -> None:
    run_command("training", "promote", "1", "--force", home=home)
    wait_until_served(url, "1")
    forget(home, "2")
    with Asking(url) as asking:
        # No file may grow beyond 16 KiB: what a full disk does, to this command alone.
        command = f"trap '' XFSZ; ulimit -f 16; exec {sys.executable} -m training import --challenger"
        run_command("training", "releases", home=home)
        set_challenger(home, "2")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env={**os.environ, **home_variables(home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert "File too large" in done.stderr
        assert "Traceback" not in done.stderr
    assert asking.faults == []
    assert served(url) == "1"
    assert record(home)["challenger"] is None
    run_command("training", "import", "--challenger", home=home)
    assert record(home)["challenger"]["release"] == "2"


def set_challenger(home: Path, number: str) -> None:
    from training.registry.releases import Registry

    registry = Registry(home_variables(home)["MLFLOW_TRACKING_URI"])
    registry.set_challenger(registry.release(number))


def test_a_hundred_changes_in_a_row_take_no_memory(home: Path, url: str) -> None:
    run_command("training", "promote", "2", "--force", home=home)
    run_command("training", "promote", "1", "--force", home=home)
    wait_until_served(url, "1")
    both = {name: record(home)[name] for name in ("active", "previous")}
    pairs = {pair["release"]: pair for pair in both.values()}
    port = int(url.rsplit(":", 1)[1])
    memory = []
    with Asking(url) as asking:
        for number in range(110):
            if number in range(10, 110, 20) or number == 109:
                time.sleep(1.5)
                memory.append(memory_mib(port))
            active, previous = (pairs["21"[number % 2]], pairs["12"[number % 2]])
            write_record(home, active, previous)
            wait_until_served(url, active["release"])
    assert asking.faults == []
    print([round(mib, 1) for mib in memory])
    assert np.mean(memory[-2:]) <= 1.05 * memory[0]


def write_record(home: Path, active: dict[str, str], previous: dict[str, str]) -> None:
    path = home / "bentoml" / "models" / "releases.json"
    document = {"schema": 1, "active": active, "challenger": None, "previous": previous}
    path.with_suffix(".new").write_text(json.dumps(document))
    path.with_suffix(".new").replace(path)


def memory_mib(port: int) -> float:
    """Return the unshared memory of the service's processes."""
    first = next(
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"]
        and "serve" in process.info["cmdline"]
        and str(port) in process.info["cmdline"]
    )
    processes = [first, *first.children(recursive=True)]
    return float(sum(process.memory_full_info().uss for process in processes) / 2**20)


def test_a_release_that_was_removed_from_the_registry_is_served_on_and_comes_back_with_its_runners(
    home: Path, url: str
) -> None:
    from training.registry.releases import RELEASE, Registry

    run_command("training", "promote", "2", "--force", home=home)
    wait_until_served(url, "2")
    registry = Registry(home_variables(home)["MLFLOW_TRACKING_URI"])
    registry.client.delete_model_version(RELEASE, "2")
    for process in psutil.process_iter(["cmdline", "environ"]):
        line = process.info["cmdline"] or []
        if "XGBoostRunner" in line and (process.info["environ"] or {}).get("BENTOML_HOME") == str(
            home / "bentoml"
        ):
            process.kill()
    deadline = time.monotonic() + 60
    while not answers_ready(url):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert served(url) == "2"
    run_command("training", "promote", "1", "--force", home=home)
    wait_until_served(url, "1")
