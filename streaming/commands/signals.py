"""Obeys SIGTERM and SIGINT: asks the command to end, and ends the process when that takes too long."""

import os
import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType

# A stop takes no longer than 10 s, whatever hangs.
STOP_LIMIT_S = 9.0


class StopSignals:
    """Handles the signals from the moment that it is made; only the main thread can make one.

    Until `on_stop` has named what to call, a signal ends the process with 0: nothing has begun.

    Parameters
    ----------
    forced_status : int
        Exit status when the command has not ended in time: 0 where a forced end loses nothing, 1 where
        something may be missing.
    """

    def __init__(self, forced_status: int) -> None:
        self._forced_status = forced_status
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stop: Callable[[], None] = lambda: os._exit(0)
        threading.Thread(target=self._wait_for_signal, name="stop-signals", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Name what a signal calls from now on, on a thread of its own."""
        self._stop = stop

    def _handle(self, number: int, _: FrameType | None) -> None:
        # The main thread may hold the very lock that an Event or a Thread would take here; a SimpleQueue
        # may be filled from a signal handler.
        self._signals.put(number)

    def _wait_for_signal(self) -> None:
        self._signals.get()
        last_resort = threading.Timer(STOP_LIMIT_S, os._exit, (self._forced_status,))
        last_resort.daemon = True
        last_resort.start()
        self._stop()
