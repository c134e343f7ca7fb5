"""Signals, whatever the main thread is doing when they come."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streaming.commands import replay as run
from streaming.commands import signals as stopping
from streaming.commands.signals import StopSignals
from streaming.settings.load import Settings
from streaming.settings.sections import ReplaySettings
from tests.e2e.faults import wait_until

ROOT = Path(__file__).parents[4]
NOWHERE = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the exit statuses of ends by force, which do not happen."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    return ended


@pytest.mark.timeout(30)
def test_a_signal_that_comes_while_the_main_thread_holds_the_events_lock(ended: list[int]) -> None:
    stopped = threading.Event()
    StopSignals(0).on_stop(stopped.set)
    with stopped._cond:  # type: ignore[attr-defined]  # what Event.wait() holds for a moment
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
    assert stopped.wait(5)
    assert ended == []


@pytest.mark.parametrize("status", [0, 1])
def test_what_does_not_end_is_ended(status: int, ended: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "STOP_LIMIT_S", 0.05)
    StopSignals(status).on_stop(lambda: time.sleep(60))
    os.kill(os.getpid(), signal.SIGINT)
    wait_until(lambda: ended == [status], 5, "not ended", 0.01)


def test_a_replay_that_is_ended_by_force_has_failed(
    ended: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stuck:
        def __init__(self, *_: object) -> None:
            pass

        def send(self, *_: object) -> None:
            pass

        def flush(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: bool(ended), 5, "not ended", 0.01)

        def close(self) -> None:
            pass

    monkeypatch.setattr(stopping, "STOP_LIMIT_S", 0.05)
    monkeypatch.setattr(run, "prepare_input", lambda settings: None)
    monkeypatch.setattr(run, "IdempotentProducer", Stuck)
    data = tmp_path / "rows.csv"
    header = ",".join(["Time", *(f"V{number}" for number in range(1, 29)), "Amount"])
    data.write_text(f"{header}\n{','.join(['0'] * 30)}\n")
    run.run_replay(Settings(replay=ReplaySettings(data=str(data))))
    assert ended == [1]


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("command", [["bridge", "--metrics-port", "0"], ["replay", "--data", "x.csv"]])
def test_a_signal_is_obeyed_while_the_broker_is_waited_for(command: list[str]) -> None:
    started = [sys.executable, "-m", "streaming", *command, "--bootstrap-servers", NOWHERE]
    with subprocess.Popen(started, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: catches_sigterm(process.pid), 15, "the signal is not taken over")
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(3) == 0
        finally:
            process.kill()
