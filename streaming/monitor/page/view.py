"""What the monitor shows now: the last report, and whether it can still be trusted."""

import time
from typing import Any, Protocol

# Figures are worked out anew every few seconds; so many times later, something holds the loop up.
REPORTS_MISSED = 6
LIVE_TIMEOUT_S = 60.0
BROKER_TIMEOUT_S = 30.0


class Watched(Protocol):
    """What the view looks at in a loop."""

    document: dict[str, Any] | None
    last_turn: float
    last_commit: float
    broker_answered_at: float
    waits_for: str | None


class View:
    """The document of ``/quality.json``, and health.

    Parameters
    ----------
    refresh_s : float
        How often the loop reports.
    stale_after_s : float
        How old the newest transaction may be.
    """

    def __init__(self, refresh_s: float, stale_after_s: float) -> None:
        self._refresh_s, self._stale_after_s = refresh_s, stale_after_s
        self._started = time.monotonic()
        self.monitor: Watched | None = None
        self.failed_by: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the last report with its state: ``ok``, ``empty``, ``stale`` or ``failed``."""
        report = self.monitor.document if self.monitor is not None else None
        state, sentence = self._state(report)
        return (report or {}) | {"state": state, "sentence": sentence}

    def _state(self, report: dict[str, Any] | None) -> tuple[str, str]:
        if self.failed_by is not None:
            return "failed", f"The monitor has stopped: {self.failed_by}"
        if report is None or not report["releases"]:
            return "empty", "No decision has been read yet: are the bridge and the stream running?"
        fault = self._staleness(report)
        if fault is not None:
            return "stale", fault
        return "ok", "Figures are up to date."

    def _staleness(self, report: dict[str, Any]) -> str | None:
        now = time.time()
        silence_s = self._broker_silence_s()
        if silence_s > BROKER_TIMEOUT_S:
            return f"The broker has not answered for {silence_s:.0f} s: figures are as of then."
        if self.monitor is not None and self.monitor.waits_for:
            return f"{self.monitor.waits_for}. Figures are as of then."
        age_s = now - report["generated_at_ms"] / 1000
        if age_s > REPORTS_MISSED * self._refresh_s + 10:
            return f"Figures are {age_s:.0f} s old: the monitor is busy or stuck."
        behind_s = now - (report["as_of_ms"] or 0) / 1000
        if behind_s > self._stale_after_s:
            lag = sum(report["lag_records"].values())
            cause = f"{lag:,} records are still to be read" if lag else "no newer one has come"
            return f"The newest transaction is {behind_s / 60:.0f} minutes old: {cause}."
        return None

    def _broker_silence_s(self) -> float:
        return time.monotonic() - self.monitor.broker_answered_at if self.monitor is not None else 0.0

    def liveness_failure(self) -> str | None:
        """Return why the loop seems dead, or None."""
        silence_s = time.monotonic() - (self.monitor.last_turn if self.monitor else self._started)
        return f"the loop has not turned for {silence_s:.0f} s" if silence_s > LIVE_TIMEOUT_S else None

    def readiness_failure(self) -> str | None:
        """Return why the monitor is not ready, or None."""
        if self.failed_by is not None:
            return self.failed_by
        if self.monitor is None or self.monitor.document is None:
            return "the monitor has not read its topics yet"
        if self._broker_silence_s() > BROKER_TIMEOUT_S:
            return f"the broker has not answered for {self._broker_silence_s():.0f} s"
        if self.monitor.waits_for:
            return self.monitor.waits_for
        return self.liveness_failure()
