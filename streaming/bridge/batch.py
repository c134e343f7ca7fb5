"""A batch of records that are decided together, and how records are cut into batches."""

import threading
from collections.abc import Iterable, Iterator, Sequence

from streaming.records import InputRecord, NextOffset


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

    def next_offsets(self) -> dict[int, NextOffset]:
        """Return partition to the offset that follows the last record of this batch."""
        last = {record.partition: record for record in self.records}
        return {
            partition: NextOffset(record.offset + 1, record.leader_epoch)
            for partition, record in last.items()
        }


def split_into_batches(records: Iterable[InputRecord], max_records: int, max_bytes: int) -> Iterator[Batch]:
    """Cut records into batches within both limits; one record above `max_bytes` goes alone.

    Examples
    --------
    >>> records = [InputRecord("t", 0, n, 0, None, b"x" * 40) for n in range(5)]
    >>> [len(batch) for batch in split_into_batches(records, max_records=3, max_bytes=100)]
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
