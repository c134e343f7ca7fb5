"""Runs calls that may never return: each gets a deadline, and a thread that can be left behind."""

from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from streaming.daemon_pool import DaemonPool

Result = TypeVar("Result")


class DeadlinePassedError(Exception):
    """A call did not return in time; it may still do so, unheard."""


class DeadlineThread:
    """A daemon thread that runs one call at a time.

    kafka-python's transactional calls take no timeout and can hang for ever (when the coordinator
    refuses the connection at the moment a request is first sent). A call that overruns is left
    behind together with this thread, and the caller makes a new one.

    Parameters
    ----------
    name : str
        Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self.is_abandoned = False
        self._thread = DaemonPool(1, name)

    def call(self, function: Callable[[], Result], timeout_s: float) -> Result:
        """Return what `function` returns, or raise what it raises.

        Raises
        ------
        DeadlinePassedError
            After `timeout_s` seconds; the thread takes no further calls.
        """
        if self.is_abandoned:
            raise DeadlinePassedError("an earlier call has not returned")
        future = self._thread.submit(function)
        try:
            return future.result(timeout_s)
        except FutureTimeoutError:
            if future.done():
                raise  # the call itself raised it
            self.is_abandoned = True
            self.end()
            raise DeadlinePassedError(f"no answer within {timeout_s:g} s") from None

    def end(self) -> None:
        """Let the thread end after its present call."""
        self._thread.end()
