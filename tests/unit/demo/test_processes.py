"""Whatever the demo starts must end with it, with all its children."""

import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from demo.errors import DemoError
from demo.pipeline import answers
from demo.ports import HOST, accepts_connections, choose_port, is_free
from demo.processes import Process

STUBBORN_CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
PARENT_OF_A_STUBBORN_CHILD = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {STUBBORN_CHILD!r}]).pid, flush=True)
time.sleep(600)
"""


def python(script: str, folder: Path) -> Process:
    return Process("The script", [sys.executable, "-c", script], folder / "script.log")


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_what_runs_here_is_asked_past_a_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv(variable, "socks5://127.0.0.1:9" if variable == "ALL_PROXY" else "http://127.0.0.1:9")
    with HTTPServer((HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert answers(f"http://{HOST}:{server.server_port}/")
        server.shutdown()


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_stopped_process_leaves_no_child_behind(tmp_path: Path) -> None:
    with python(PARENT_OF_A_STUBBORN_CHILD, tmp_path) as process:
        process.wait_ready(lambda: process.last_line().isdigit(), 10)
        child = int(process.last_line())
        assert is_alive(child)
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


def test_a_failure_tells_its_last_words_and_its_log(tmp_path: Path) -> None:
    process = python("import sys; print('no such file: x.csv'); sys.exit(3)", tmp_path).start()
    with pytest.raises(DemoError, match=r"status 3: no such file: x\.csv\nIts log: .*script\.log"):
        process.wait_done()


def test_a_process_that_dies_before_it_is_ready_is_not_waited_for(tmp_path: Path) -> None:
    started = time.monotonic()
    with python("pass", tmp_path) as process, pytest.raises(DemoError, match="ended with status 0"):
        process.wait_ready(lambda: False, 30)
    assert time.monotonic() - started < 20


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    with socket.create_server((HOST, 0)) as server:
        taken = server.getsockname()[1]
        assert not is_free(taken)
        assert accepts_connections(taken)
        other = choose_port(taken)
    assert other != taken
    assert choose_port(other, {other}) != other


def test_the_environment_of_a_child_is_ours_and_its_own(tmp_path: Path) -> None:
    script = "import os; print(os.environ['COLOUR'], 'PATH' in os.environ)"
    process = Process("x", [sys.executable, "-c", script], tmp_path / "log", env={"COLOUR": "blue"}).start()
    process.wait_done()
    assert process.last_line() == "blue True"
    assert "COLOUR" not in os.environ
