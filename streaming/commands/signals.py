"""Obeys SIGTERM and SIGINT: asks the command to end, and ends the process when that takes too long."""

import os
import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType

# A stop takes no longer than 10 s, whatever hangs.
STOP_LIMIT_S = 9.0


class Stopping:
    """Takes the signals over from the moment that it is made; only the main thread can make one.

    Until `calls` has named what to stop, a signal ends the process with 0: nothing has begun.

    Parameters
    ----------
    forced_status : int
        Exit status when the command has not ended in time: 0 where an end without goodbye loses
        nothing, 1 where something may be missing.
    """

    def __init__(self, forced_status: int) -> None:
        self._forced_status = forced_status
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stop: Callable[[], None] = lambda: os._exit(0)
        threading.Thread(target=self._obey, name="stopping", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def calls(self, stop: Callable[[], None]) -> None:
        """Name what a signal calls from now on, on a thread of its own."""
        self._stop = stop

    def _note(self, number: int, _: FrameType | None) -> None:
        # The main thread may hold the very lock that an Event or a Thread would take here; this queue
        # is made to be filled from where a thread was interrupted.
        self._signals.put(number)

    def _obey(self) -> None:
        self._signals.get()
        last_resort = threading.Timer(STOP_LIMIT_S, os._exit, (self._forced_status,))
        last_resort.daemon = True
        last_resort.start()
        self._stop()
