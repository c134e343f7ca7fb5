"""Delays a runner's shutdown until no request has arrived for 0.5 s.

BentoML (1.4.40) stops all processes at once, so a request still in the gateway would find no runner.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from types import FrameType

import uvicorn
import uvicorn.server

from bentos.compat.assumptions import require

# No request for this long: the gateway has finished. Until then it calls every few milliseconds.
QUIET_S = 0.5
# The gateway's deadline is 2 s, so no request that it still holds arrives later than this.
MAX_DELAY_S = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def check_assumptions() -> None:
    """Return if uvicorn handles stop signals as `GracefulShutdown` takes for granted.

    Raises
    ------
    BrokenAssumptionError
        If its handlers could not be called from here.
    """
    is_method = callable(getattr(uvicorn.Server, "handle_exit", None))
    holds = is_method and set(SIGNALS) <= set(getattr(uvicorn.server, "HANDLED_SIGNALS", ()))
    require("uvicorn", "it handles SIGTERM and SIGINT by `signal.signal` before start-up", holds)


class GracefulShutdown:
    """Passes a stop signal on to uvicorn once no request has arrived for `QUIET_S` seconds."""

    def __init__(self) -> None:
        self._last_request = time.monotonic()
        self._uvicorn_handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None

    def note_request(self) -> None:
        """Remember that a request has arrived now."""
        self._last_request = time.monotonic()

    def install(self) -> None:
        """Take over the stop signals; uvicorn has set its own handlers before start-up."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in SIGNALS:
            self._uvicorn_handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._start_stopping, number)

    def _start_stopping(self, number: int) -> None:
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop_when_quiet(number))

    async def _stop_when_quiet(self, number: int) -> None:
        signalled = time.monotonic()
        latest = signalled + MAX_DELAY_S
        while time.monotonic() < min(max(self._last_request, signalled) + QUIET_S, latest):
            await asyncio.sleep(0.05)
        handler = self._uvicorn_handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, None)
