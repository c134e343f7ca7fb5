"""A batch that remembers where its records came from, and what becomes of them."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

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
        Only where a command needs them; the bridge does not.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


class OutputRecord(msgspec.Struct, frozen=True, gc=False):
    """One record to publish.

    Attributes
    ----------
    kind : str
        Which of the sink's topics it belongs to: ``"decision"``, ``"dead_letter"``, ``"redriven"``.
    partition : int
        Partition of the input it came from; the output keeps it, so the order is kept.
    """

    kind: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = []


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The service's decision on one record: the JSON object as it came, and two of its fields."""

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


Outcome = Verdict | Rejection


class Batch:
    """Consecutive records, decided together.

    Parameters
    ----------
    records : sequence of InputRecord
        At least one; within a partition in order of offset.
    """

    def __init__(self, records: Sequence[InputRecord]) -> None:
        self.records = tuple(records)
        self.size = sum(record.size for record in self.records)
        self.dropped = threading.Event()

    def __len__(self) -> int:
        return len(self.records)

    def next_offsets(self) -> dict[int, int]:
        """Return partition to the offset that follows the last record of this batch."""
        return {record.partition: record.offset + 1 for record in self.records}


def split(records: Iterable[InputRecord], max_records: int, max_bytes: int) -> Iterator[Batch]:
    """Cut records into batches within both limits; one record above `max_bytes` goes alone.

    Examples
    --------
    >>> records = [InputRecord("t", 0, n, 0, None, b"x" * 40) for n in range(5)]
    >>> [len(batch) for batch in split(records, max_records=3, max_bytes=100)]
    [2, 2, 1]
    """
    part: list[InputRecord] = []
    size = 0
    for record in records:
        if part and (len(part) >= max_records or size + record.size > max_bytes):
            yield Batch(part)
            part, size = [], 0
        part.append(record)
        size += record.size
    if part:
        yield Batch(part)
