"""What the parts of a running bridge tell each other and the health checks; each field has one writer.

It lies above no folder, since both the bridge and the observability of it read it.
"""

import time
from dataclasses import dataclass, field

from streaming.records import HeldRecord


@dataclass
class BridgeState:
    """Shared by the threads of one bridge; a reader may see a value that is a moment old.

    Attributes
    ----------
    last_turn : float
        When the loop last began a turn, by ``time.monotonic()``. Written by the loop.
    last_idle : float
        When the loop last saw nothing in flight and no lag. Written by the loop.
    last_commit : float
        When the last transaction was committed. Written by the publisher.
    total_lag : int
        Records not fetched yet, all partitions. Written by the loop.
    last_answer : float
        When the group's coordinator and the leader of every assigned partition last answered. Written by the
        loop.
    is_assigned : bool
        Whether the group counts the bridge as a member and has told it its partitions. Written by the loop.
    is_instance_id_taken : bool
        Whether another process has the instance id. Written by the group monitor.
    rejoin_requests : int
        How often partitions without a reader were found. Written by the group monitor.
    unassigned_lags : dict of int to int
        Partitions without a reader to the records in them, told by one bridge of the group. Written by the
        group monitor; replaced, never changed.
    held : dict of int to HeldRecord
        Partition to the record that it stands at. Written by the loop; replaced, never changed.
    committed : dict of int to int
        Partition to the offset that was committed last. Written by the publisher.
    skip_orders : dict of (int, int) to str
        Partition and offset of records that a person has ordered to skip, and why. Written by the group
        monitor; replaced, never changed.
    stopped_by : str or None
        The error that ended the bridge. Written by the command.
    """

    last_turn: float = field(default_factory=time.monotonic)
    last_idle: float = field(default_factory=time.monotonic)
    last_commit: float = 0.0
    total_lag: int = 0
    last_answer: float = field(default_factory=time.monotonic)
    is_assigned: bool = False
    is_instance_id_taken: bool = False
    rejoin_requests: int = 0
    unassigned_lags: dict[int, int] = field(default_factory=dict)
    held: dict[int, HeldRecord] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    skip_orders: dict[tuple[int, int], str] = field(default_factory=dict)
    stopped_by: str | None = None

    @property
    def last_progress(self) -> float:
        """When the bridge last committed, or had nothing to do."""
        return max(self.last_commit, self.last_idle)
