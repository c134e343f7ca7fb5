"""Records read and written, and what the service or the bridge decided on one."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

Headers = list[tuple[str, bytes]]


class InputRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of the input topic, bytes untouched.

    Attributes
    ----------
    topic, partition, offset
        Its identity.
    timestamp_ms : int
        When it was produced, milliseconds since 1970.
    key, value : bytes or None
    headers : sequence of (str, bytes)
    leader_epoch : int
        Epoch of the leader that took the record in; -1 where unknown.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    leader_epoch: int = -1

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


class NextOffset(NamedTuple):
    """The offset that a group goes on from, with the leader epoch of the record before it; -1: unknown."""

    offset: int
    leader_epoch: int = -1


class OutputRecord(msgspec.Struct, frozen=True, gc=False):
    """One record to publish.

    Attributes
    ----------
    kind : str
        Which of the sink's topics it belongs to: ``"decision"``, ``"dead_letter"``, ``"redriven"``.
    partition : int
        Partition of the input it came from; the output keeps it, so the order is kept.
    source_offset : int
        Offset of the input it came from, for messages; -1: none.
    """

    kind: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = []
    source_offset: int = -1


class ServiceDecision(msgspec.Struct, frozen=True, gc=False):
    """The service's decision on one record: the JSON object as received, and two of its fields."""

    raw: bytes
    decision: str
    release: str


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """Why one record cannot be decided.

    Attributes
    ----------
    stage : {"parse", "validate", "classify"}
        Who refused: the bridge's own check, the service naming the item, the service without naming it.
    reason : str
        Short label.
    message : str
        One sentence without any value of the transaction.
    attempts : int
        Requests to the service that this record was part of.
    """

    stage: Literal["parse", "validate", "classify"]
    reason: str
    message: str
    attempts: int = 0


class Undecided(msgspec.Struct, frozen=True, gc=False):
    """No outcome yet: the service fails on this record, or on one before it in its partition.

    Attributes
    ----------
    error : str
        What the service answered; empty for a record that only stands behind another.
    """

    error: str = ""


Outcome = ServiceDecision | Rejection
"""What becomes of a record."""

DecidedOutcome = Outcome | Undecided
"""What a decider returns for a record."""
