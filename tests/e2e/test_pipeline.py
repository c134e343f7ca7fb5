"""``make demo`` as a new user runs it, on a small file: from training to a decided stream."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, home_variables, run_command

ROWS = 8000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("demo")
    data = home / "transactions.parquet"
    # More fraud than in a real stream, so that a small file has some in every part.
    simulate = ("--rows", str(ROWS), "--seed", "11", "--prevalence", "0.02", "--output", str(data))
    run_command("training", "simulate", *simulate, home=home)
    return home


def demo_environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        **home_variables(home),
        "DATA": str(home / "transactions.parquet"),
        "DEMO_FOLDER": str(home / "runs"),
        "KEEP": "0",
        "COLUMNS": "160",
        "TRAINING__NETWORK__EPOCHS": "3",
    }


def processes_of(home: Path) -> list[str]:
    """Command lines of live processes whose environment names `home`."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(home).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [command for command in found if command]


def run_demo(home: Path) -> tuple[str, dict[str, Any]]:
    done = subprocess.run(
        ["make", "demo"],
        cwd=ROOT,
        env=demo_environment(home),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((home / "runs" / "summary.json").read_text())


def is_genuine() -> bool:
    """Say whether the demo runs on Apache Kafka here; of the embedded broker it claims nothing."""
    return any(os.environ.get(name) for name in ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_HOME"))


@pytest.mark.timeout(720)
def test_from_a_file_to_a_decided_stream(home: Path) -> None:
    shown, summary = run_demo(home)
    replayed = sum(summary["decisions"].values())
    assert replayed == pytest.approx(0.2 * ROWS, abs=50)
    assert (summary["lost"], summary["duplicates"], summary["dead_letters"]) == (0, 0, {})
    assert summary["release"] == "1"
    assert summary["models"] == {"neural_net": "fraud_neural_net:1", "xgboost": "fraud_xgboost:1"}
    assert summary["latency_ms"]["p50"] > 0
    promotion = summary["promotion"]
    assert (promotion["requests_failed"], promotion["lost"], promotion["duplicates"]) == (0, 0, 0)
    assert promotion["releases"] == ["1", "2"]
    assert promotion["swapped_in_s"] < 5
    for text in (
        "transactions.parquet",
        "recall",
        "precision",
        "0 lost" if is_genuine() else "not claimed on the embedded broker",
        "produced to readable",
        "requests failed 0",
        "/metrics",
    ):
        assert text in shown
    assert processes_of(home) == []


@pytest.mark.timeout(720)
def test_a_repeat_reuses_the_release(home: Path) -> None:
    _, summary = run_demo(home)
    assert summary["release"] == "1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.timeout(720)
def test_interrupted_it_stops_what_it_started(home: Path, number: signal.Signals) -> None:
    command = [str(ROOT / ".venv/bin/python"), "-m", "demo"]
    with subprocess.Popen(
        command, cwd=ROOT, env=demo_environment(home), stdout=subprocess.PIPE, text=True
    ) as demo:
        try:
            wait_for(lambda: demo.poll() is not None or is_serving(home))
        finally:
            demo.send_signal(number)
        said, _ = demo.communicate(timeout=60)
    assert demo.returncode in (130, 143), said
    assert processes_of(home) == []


def test_a_missing_file_is_one_sentence(home: Path) -> None:
    environment = {**demo_environment(home), "DATA": "nowhere.csv"}
    command = [str(ROOT / ".venv/bin/python"), "-m", "demo"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DATA=nowhere.csv is not a file" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_bad_file_names_the_place_and_the_log(home: Path) -> None:
    bad = home / "bad.csv"
    bad.write_text("Time,V1,Amount,Class\n0,1,2,0\n")
    environment = {**demo_environment(home), "DATA": str(bad)}
    command = [str(ROOT / ".venv/bin/python"), "-m", "demo"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "V2" in done.stdout
    assert "training.log" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert processes_of(home) == []


def is_serving(home: Path) -> bool:
    return any("bentoml" in command and " serve " in command for command in processes_of(home))


def wait_for(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the demo did not come that far"
        time.sleep(0.1)
