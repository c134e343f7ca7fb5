"""Limits how long calls to the runners take; a stall of this process's own loop is no silence of theirs."""

from __future__ import annotations

from typing_extensions import override

from bentos.task_timer import TaskTimer

# Of the time that a call may take: how often calls are looked at.
INTERVAL_SHARE = 0.05


class Deadlines(TaskTimer):
    """Leaves out the time for which the loop has stalled.

    After a stall a loop runs its timers before it reads what has come meanwhile. Without this, every call
    under way would be over its deadline then, and runners that had answered would be taken for dead.

    Parameters
    ----------
    limit_s : float
        How long a call may take, in the time that the loop ran; looked at every twentieth of that.
    """

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s, limit_s * INTERVAL_SHARE)
        self._was_late = False

    @override
    def _note_late(self, late_s: float) -> None:
        is_late = late_s > self._interval_s
        # Not twice running: what had come before has been read since, and a slow loop must not wait for ever.
        if is_late and not self._was_late:
            self._lost_s += late_s
        self._was_late = is_late
