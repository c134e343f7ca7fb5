"""Threads beside the bridge: summary lines, and looks at the group: who is in it, and is all of it read."""

import contextlib
import threading
from collections.abc import Callable

import structlog

from streaming.errors import PublishFailed
from streaming.observability.metrics import Metrics
from streaming.ports import Guard, Membership, Source

log = structlog.get_logger()


class Watch:
    """Looks every few seconds, apart from the loop, so that a slow broker does not hold it up.

    Parameters
    ----------
    source : Source
        Tells the membership.
    guard : Guard
        Tells how the group stands.
    metrics : Metrics
    check_s, summary_s : float
        Time between two looks, and between two summary lines, seconds.
    """

    def __init__(
        self, source: Source, guard: Guard, metrics: Metrics, check_s: float, summary_s: float
    ) -> None:
        self._source = source
        self._guard = guard
        self._metrics = metrics
        self._check_s = check_s
        self._summary_s = summary_s
        self._ended = threading.Event()
        self.is_taken = False
        self.must_rejoin = False
        self._unread_under: Membership | None = None
        self._threads = [
            threading.Thread(target=self._check, name="membership", daemon=True),
            threading.Thread(target=self._summarise, name="summary", daemon=True),
        ]

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def look(self) -> bool:
        """Return whether another process has the instance id, asking now."""
        try:
            membership = self._source.membership()
        except PublishFailed:
            return False  # not in the group at this moment: joining will tell
        taken = self._guard.is_taken(membership)
        try:
            # Joining anew changes the member id: only an answer about the present one counts.
            return taken and self._source.membership() == membership
        except PublishFailed:
            return False

    def close(self) -> None:
        """Stop looking."""
        self._ended.set()

    def _check(self) -> None:
        try:
            while not self._ended.wait(self._check_s):
                self.is_taken = _survived(self.look)
                if self.is_taken:
                    return
                self.must_rejoin |= _survived(self._is_left_unread)
        finally:
            self._guard.close()

    def _is_left_unread(self) -> bool:
        """Return whether the same group leaves a partition to nobody for the second time.

        Cooperative rebalancing takes two rounds: who gave partitions up in the first calls for the second.
        Killed in between, and back under its instance id without a rebalance, it knows of none.
        """
        before, self._unread_under = self._unread_under, None
        if self._guard.has_unread():
            with contextlib.suppress(PublishFailed):  # not in the group at this moment: joining shares out
                self._unread_under = self._source.membership()
        return before is not None and before == self._unread_under

    def _summarise(self) -> None:
        while not self._ended.wait(self._summary_s):
            log.info("summary", lag=self._metrics.waiting, **self._metrics.summary.take())


def _survived(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except Exception as error:
        # The thread that looks must outlive what nobody foresaw, or a rival is never seen.
        log.warning("membership_unknown", error=type(error).__name__)
        return False
