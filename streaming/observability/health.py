"""Decides whether a bridge is alive and ready, and why not."""

import time
from collections.abc import Callable

from streaming.bridge_state import BridgeState
from streaming.settings.sections import MetricsSettings

# Heartbeats come every 2 s by default, questions to the leaders every 3 s.
ANSWER_TIMEOUT_S = 10.0


class Health:
    """Whether the bridge is alive, and whether it makes progress.

    Parameters
    ----------
    state : BridgeState
    settings : MetricsSettings
    is_service_ready : callable
        Asks the scoring service.
    """

    def __init__(
        self, state: BridgeState, settings: MetricsSettings, is_service_ready: Callable[[], bool]
    ) -> None:
        self._state = state
        self._settings = settings
        self._is_service_ready = is_service_ready

    def liveness_failure(self) -> str | None:
        """Return why the loop seems dead, or None."""
        silence_s = time.monotonic() - self._state.last_turn
        if silence_s > self._settings.live_timeout_s:
            return f"the loop has not turned for {silence_s:.0f} s"
        return None

    def readiness_failure(self) -> str | None:
        """Return why the bridge is not ready, or None."""
        return (
            self._state.stopped_by
            or self._broker_failure()
            or self._progress_failure()
            or (None if self._is_service_ready() else "the scoring service is not ready")
            or self.liveness_failure()
        )

    def broker_silence_s(self) -> float:
        """Return for how long the coordinator or the leader of a partition has not answered, seconds."""
        return time.monotonic() - self._state.last_answer

    def _broker_failure(self) -> str | None:
        silence_s = self.broker_silence_s()
        if not self._state.is_assigned:
            return "the bridge has not joined its group"
        if silence_s > ANSWER_TIMEOUT_S:
            return f"the brokers of the group or of its partitions have not answered for {silence_s:.0f} s"
        return None

    def _progress_failure(self) -> str | None:
        standstill_s = time.monotonic() - self._state.last_progress
        if standstill_s > self._settings.progress_timeout_s:
            return f"records wait and none was committed for {standstill_s:.0f} s"
        if held := list(self._state.held.values()):
            one = held[0]
            more = f" ({len(held) - 1} more partitions stand)" if held[1:] else ""
            return (
                f"no outcome for partition {one.partition}, offset {one.offset}, where the partition "
                f"stands{more}: {one.error} To do: {one.advice}"
            )
        return None
