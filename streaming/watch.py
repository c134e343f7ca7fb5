"""A thread beside the bridge: summary lines, and a look at who holds the instance id."""

import threading

import structlog

from streaming.errors import PublishFailed
from streaming.metrics import Metrics
from streaming.ports import Guard, Source

log = structlog.get_logger()


class Watch:
    """Looks every few seconds, apart from the loop, so that a slow broker does not hold it up.

    Parameters
    ----------
    source : Source
        Tells the membership.
    guard : Guard
        Tells who holds the instance id.
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
                self.is_taken = self._looked()
                if self.is_taken:
                    return
        finally:
            self._guard.close()

    def _looked(self) -> bool:
        try:
            return self.look()
        except Exception as error:
            # The thread that looks must outlive what nobody foresaw, or a rival is never seen.
            log.warning("membership_unknown", error=type(error).__name__)
            return False

    def _summarise(self) -> None:
        while not self._ended.wait(self._summary_s):
            log.info("summary", lag=self._metrics.waiting, **self._metrics.summary.take())
