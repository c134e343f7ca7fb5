"""How long to wait before the next attempt: exponential, with jitter, never shorter than asked."""

import random
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Waits that grow to a limit.

    Parameters
    ----------
    initial_s, max_s : float
        First and longest wait, seconds.
    retry_after_max_s : float
        Longest wish of a service that is honoured, seconds.
    """

    initial_s: float
    max_s: float
    retry_after_max_s: float = 30.0

    def delay_s(self, attempt: int, retry_after_s: float | None = None) -> float:
        """Return the wait after failed attempt number `attempt` (from 1), in seconds.

        Half of it is random, so that bridges that failed together do not return together.
        """
        limit = min(self.max_s, self.initial_s * 2.0 ** min(attempt - 1, 60))
        delay = limit * random.uniform(0.5, 1.0)  # noqa: S311  # not a secret
        if retry_after_s is None:
            return delay
        asked = min(retry_after_s, self.retry_after_max_s)
        return max(delay, asked * random.uniform(1.0, 1.1))  # noqa: S311

    def wait(self, attempt: int, stopped: threading.Event, retry_after_s: float | None = None) -> bool:
        """Wait, but no longer than until `stopped` is set; return whether it is."""
        return stopped.wait(self.delay_s(attempt, retry_after_s))
