"""Lets a runner outlive the gateway: told to stop, it goes on until nobody asks any more.

BentoML stops all processes at once, so that requests still under way in the gateway would find no runner.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from types import FrameType

# No request for so long: the gateway has finished. It asks within milliseconds while it has not.
QUIET_S = 0.5
# The gateway's deadline is 2 s; nothing it still waits for comes later than this.
LONGEST_S = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Linger:
    """Stands between a stop signal and uvicorn."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._uvicorn = {number: signal.getsignal(number) for number in SIGNALS}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def touch(self) -> None:
        """Note that somebody asked."""
        self._last = time.monotonic()

    def install(self) -> None:
        """Take the stop signals over from uvicorn, which has set its handlers before start-up."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in SIGNALS:
            self._uvicorn[number] = signal.signal(number, self._told_to_stop)

    def _told_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._start, number)

    def _start(self, number: int) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._stop_when_quiet(number))

    async def _stop_when_quiet(self, number: int) -> None:
        told = time.monotonic()
        while time.monotonic() < min(max(self._last, told) + QUIET_S, told + LONGEST_S):
            await asyncio.sleep(0.05)
        handler = self._uvicorn[signal.Signals(number)]
        if callable(handler):
            handler(number, None)
