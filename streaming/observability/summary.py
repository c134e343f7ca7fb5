"""The summary line: sums since the line before, logged every few seconds."""

import threading
import time
from collections import Counter as Tally

import structlog

from streaming.bridge_state import BridgeState

log = structlog.get_logger()


class SummaryLog:
    """Logs a summary line at an interval, on a thread of its own.

    Parameters
    ----------
    summary : Summary
    state : BridgeState
        Tells the lag.
    interval_s : float
        Time between two lines, seconds.
    """

    def __init__(self, summary: "Summary", state: BridgeState, interval_s: float) -> None:
        self._summary = summary
        self._state = state
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="summary", daemon=True)

    def start(self) -> None:
        """Begin to log."""
        self._thread.start()

    def close(self) -> None:
        """Stop logging."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            log.info("summary", lag=self._state.total_lag, **self._summary.take())


class Summary:
    """Sums since the last summary line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: Tally[str] = Tally()
        self._since = time.monotonic()

    def add(self, **amounts: float) -> None:
        """Add amounts by name."""
        with self._lock:
            self._sums.update(amounts)

    def take(self) -> dict[str, float]:
        """Return the sums and begin anew; means in milliseconds instead of sums of seconds."""
        with self._lock:
            sums, self._sums = self._sums, Tally()
            elapsed, self._since = time.monotonic() - self._since, time.monotonic()
        done = sums["decided"] + sums["dead_letters"]
        return {
            "decided": sums["decided"],
            "dead_letters": sums["dead_letters"],
            "per_second": round(done / elapsed, 1) if elapsed else 0.0,
            "transactions": sums["transactions"],
            "aborted": sums["aborted"],
            "retries": sums["retries"],
            "paused_s": round(sums["paused_s"], 3),
            "rebalances": sums["rebalances"],
            "request_ms": _mean_ms(sums["request_s"], sums["requests"]),
            "transaction_ms": _mean_ms(sums["transaction_s"], sums["transactions"]),
        }


def _mean_ms(seconds: float, count: float) -> float:
    return round(1000 * seconds / count, 2) if count else 0.0
