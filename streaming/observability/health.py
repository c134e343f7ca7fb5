"""Decides whether a bridge is alive and ready, and why not."""

import time
from collections.abc import Callable

from streaming.bridge_state import BridgeState
from streaming.settings.sections import MetricsSettings


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
        standstill_s = time.monotonic() - self._state.last_progress
        if self._state.stopped_by is not None:
            return self._state.stopped_by
        if not self._state.is_assigned:
            return "the bridge has not joined its group"
        if standstill_s > self._settings.progress_timeout_s:
            return f"records wait and none was committed for {standstill_s:.0f} s"
        if held := list(self._state.held.values()):
            one = held[0]
            return (
                f"{len(held)} partitions stand at a record that the service fails on: partition "
                f"{one.partition}, offset {one.offset}: {one.error} See `streaming skip`."
            )
        if not self._is_service_ready():
            return "the scoring service is not ready"
        return self.liveness_failure()
