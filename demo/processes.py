"""Child processes that log to a file, are waited for by polling, and never outlive their owner."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.errors import DemoError

POLL_S = 0.1
#: A service drains and a bridge commits within 10 s of SIGTERM (CONTRACTS); a little more for a busy machine.
STOP_TIMEOUT_S = 15.0


class Process:
    """A child process in a process group of its own.

    Used as a context manager it is stopped, with all its children, however the block ends.
    Its own group keeps a Ctrl-C on the terminal for the demo, which then stops it in order.

    Parameters
    ----------
    name : str
        What error messages call it.
    command : sequence of str
        Program and arguments.
    log : pathlib.Path
        Where its output goes, appended.
    env : mapping, optional
        Variables beside those of this process.
    cwd : pathlib.Path, optional
        Working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the program; its output is appended to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        """Process id; also the id of its process group."""
        assert self._child is not None, "start() comes first"
        return self._child.pid

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        assert self._child is not None, "start() comes first"
        return self._child.poll()

    def wait_ready(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Poll until `is_ready` answers True.

        Raises
        ------
        DemoError
            If the process ends first or the deadline passes.
        """
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if self.poll() is not None:
                raise DemoError(f"{self.name} ended with status {self.poll()} before it was ready.", self.log)
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name} was not ready within {timeout_s:.0f} s.", self.log)
            time.sleep(POLL_S)

    def wait_done(self, on_poll: Callable[[], None] = lambda: None) -> None:
        """Wait for the end, calling `on_poll` ten times a second.

        Raises
        ------
        DemoError
            If it ends with another status than 0; the message carries its last words.
        """
        while (status := self.poll()) is None:
            on_poll()
            time.sleep(POLL_S)
        if status != 0:
            raise DemoError(f"{self.name} failed with status {status}: {self.last_line()}", self.log)

    def last_line(self) -> str:
        """Return the last line of the log that says something."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").replace("\r", "\n").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def kill(self) -> None:
        """End it at once with SIGKILL, as a crash would."""
        self._signal_group(signal.SIGKILL)
        assert self._child is not None
        self._child.wait()

    def stop(self) -> None:
        """End it with SIGTERM, and with SIGKILL what is left of its group after the deadline."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STOP_TIMEOUT_S)
        # Workers of a dead parent would otherwise live on.
        self._signal_group(signal.SIGKILL)
        self._child.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
