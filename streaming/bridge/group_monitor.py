"""A thread beside the loop that asks the group: is the instance id still ours, is every partition read."""

import contextlib
import threading
from collections.abc import Callable

import structlog

from streaming.bridge_state import BridgeState
from streaming.errors import PublishFailed
from streaming.ports import GroupMembership, GroupMetadata, Source

log = structlog.get_logger()


class GroupMonitor:
    """Asks every few seconds, apart from the loop, so that a slow broker does not hold the loop up.

    Parameters
    ----------
    source : Source
        Tells the bridge's own membership.
    membership : GroupMembership
        Asks the group.
    state : BridgeState
        Told the answers.
    interval_s : float
        Time between two questions, seconds.
    """

    def __init__(
        self, source: Source, membership: GroupMembership, state: BridgeState, interval_s: float
    ) -> None:
        self._source = source
        self._membership = membership
        self._state = state
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._unassigned_under: GroupMetadata | None = None
        self._thread = threading.Thread(target=self._run, name="group-monitor", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def is_instance_id_taken(self) -> bool:
        """Return whether another process has the instance id, asking now."""
        try:
            metadata = self._source.group_metadata()
        except PublishFailed:
            return False  # not in the group at this moment: joining will tell
        taken = self._membership.is_taken(metadata)
        try:
            # Joining anew changes the member id: only an answer about the present one counts.
            return taken and self._source.group_metadata() == metadata
        except PublishFailed:
            return False

    def close(self) -> None:
        """Stop asking."""
        self._ended.set()

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._interval_s):
                self._state.is_instance_id_taken = _ask_safely(self.is_instance_id_taken)
                if self._state.is_instance_id_taken:
                    return
                if self._state.held:
                    self._state.skip_orders = self._read_skip_orders()
                self._state.rejoin_requests += _ask_safely(self._are_partitions_unassigned)
        finally:
            self._membership.close()

    def _read_skip_orders(self) -> dict[tuple[int, int], str]:
        try:
            return self._membership.read_skip_orders()
        except Exception as error:
            log.warning("skip_orders_unknown", error=type(error).__name__)
            return self._state.skip_orders

    def _are_partitions_unassigned(self) -> bool:
        """Return whether the same generation leaves a partition without a reader for the second time.

        Partitions that are added have no reader until the group assigns anew. A member that is killed while
        it joins, and returns under its instance id, does not know that it has to ask for that.
        """
        before, self._unassigned_under = self._unassigned_under, None
        unassigned = self._membership.unassigned_partitions()
        self._state.unassigned_lags = self._membership.undecided(unassigned) if unassigned else {}
        if unassigned:
            with contextlib.suppress(PublishFailed):  # not in the group at this moment: joining assigns all
                self._unassigned_under = self._source.group_metadata()
        return before is not None and before == self._unassigned_under


def _ask_safely(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except Exception as error:
        # If this thread died of an unforeseen error, a process with the same instance id would go unnoticed.
        log.warning("membership_unknown", error=type(error).__name__)
        return False
