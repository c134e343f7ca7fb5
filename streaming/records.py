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


HeldCause = Literal["service", "unreadable", "leaderless"]
"""What a partition waits for: a service that decides its record, a batch that can be read, a leader."""


_ADVICE: dict[HeldCause, str] = {
    "service": "mend the service, or `streaming skip --partition {partition} --offset {offset} "
    "--reason TEXT`",
    "unreadable": "see the brokers' logs; where the batch is damaged for good, delete the records of "
    "partition {partition} before offset {next_batch} (kafka-delete-records), which is counted as "
    "bridge_records_skipped_total",
    "leaderless": "bring the broker back, or give the topic more copies (replication.factor 3)",
}


class HeldRecord(NamedTuple):
    """A record that holds its partition back, while the others go on.

    Attributes
    ----------
    partition, offset
        Its place in the input topic.
    error : str
        What went wrong: the service's answer, or the broker's.
    cause : {"service", "unreadable", "leaderless"}
        The service fails on it; its batch cannot be read; its output partition has no leader.
    attempts : int
        How often it was tried and held.
    next_batch : int or None
        Offset behind the batch that cannot be read; None: not known, or another cause.
    """

    partition: int
    offset: int
    error: str
    cause: HeldCause = "service"
    attempts: int = 0
    next_batch: int | None = None

    @property
    def advice(self) -> str:
        """What a person should do about it."""
        behind = "behind the batch" if self.next_batch is None else self.next_batch
        return _ADVICE[self.cause].format(partition=self.partition, offset=self.offset, next_batch=behind)


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
