"""Finds the decisions on a range of transactions in a topic of decisions, and reads little more of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import msgspec

from streaming.output_records import SourcePlace
from streaming.records import InputRecord
from streaming.reprocessing.decision_table import DecisionTable, EarlierDecision

Offsets = Mapping[int, int]
"""Partition to offset."""

# Several partitions of the input may share one of the topic: so far is one of them looked for.
LOOK_AHEAD = 500
# Places that are looked at to see whether a partition is in the order of the transactions.
SAMPLES = 12


class Reader(Protocol):
    """What is needed of a reader of topics."""

    def read(self, topic: str, starts: Offsets, ends: Offsets) -> Iterator[list[InputRecord]]:
        """Yield the records of a range, each partition in order."""


class _DecisionRecord(msgspec.Struct, gc=False):
    decision: str
    release: str
    source: SourcePlace


_read = msgspec.json.Decoder(_DecisionRecord).decode


def collect_decisions(
    chunks: Iterable[list[InputRecord]], input_topic: str, table: DecisionTable, *, is_ordered: bool
) -> None:
    """Put the decisions of a topic into a table.

    Parameters
    ----------
    chunks : iterable of list of InputRecord
        Records of a topic of decisions.
    input_topic : str
        Topic whose transactions count.
    table : DecisionTable
    is_ordered : bool
        Whether decisions come in the order of their transactions: then the reading ends behind the range.
    """
    open_partitions = set(table.starts)
    for chunk in chunks:
        for record in chunk:
            found = _decode(record)
            if found is None or found.source.topic != input_topic:
                continue
            source = (found.source.partition, found.source.offset)
            if table.is_in_range(source):
                table.put(source, EarlierDecision(found.decision, found.release))
            if table.is_at_end(source):
                open_partitions.discard(source[0])
        if is_ordered and not open_partitions:
            return


def find_start(
    reader: Reader, topic: str, bounds: tuple[Offsets, Offsets], input_topic: str, table: DecisionTable
) -> tuple[dict[int, int], bool]:
    """Find from where on a topic holds the decisions on a range.

    A bridge writes them in the order of their transactions, partition by partition, so that halving finds the
    place. Where the input was made again the order breaks: then all has to be read.

    Parameters
    ----------
    reader : Reader
    topic : str
        Topic of decisions.
    bounds : tuple of mapping of int to int
        Its first offsets, and those after the last.
    input_topic : str
    table : DecisionTable
        Tells the range.

    Returns
    -------
    dict of int to int
        Partition to the offset from which on to read.
    bool
        Whether the topic is in the order of the transactions.
    """
    first, last = bounds

    def look(partition: int, wanted: int) -> Callable[[int], int | None]:
        end = last[partition]
        return lambda offset: _source_at(reader, topic, (partition, offset, end), input_topic, wanted)

    starts = dict(first)
    for partition in first:
        found = []
        for wanted, start in table.starts.items():
            if wanted % len(first) != partition:
                continue
            source_at = look(partition, wanted)
            step = max(1, (last[partition] - first[partition]) // SAMPLES)
            samples = (source_at(offset) for offset in range(first[partition], last[partition], step))
            seen = [source for source in samples if source is not None]
            if seen != sorted(seen):
                return dict(first), False
            found.append(_first_at_or_after(source_at, start, first[partition], last[partition]))
        starts[partition] = min(found, default=last[partition])
    return starts, True


def _first_at_or_after(source_at: Callable[[int], int | None], wanted: int, low: int, high: int) -> int:
    while low < high:
        middle = (low + high) // 2
        source = source_at(middle)
        if source is not None and source < wanted:
            low = middle + 1
        else:
            high = middle  # nothing is known there: rather begin too early
    return low


def _source_at(
    reader: Reader, topic: str, at: tuple[int, int, int], input_topic: str, wanted: int
) -> int | None:
    """Return the offset of the transaction of a partition that is decided there, or next after it."""
    partition, offset, end = at
    for chunk in reader.read(topic, {partition: offset}, {partition: min(end, offset + LOOK_AHEAD)}):
        for record in chunk:
            found = _decode(record)
            if found and found.source.topic == input_topic and found.source.partition == wanted:
                return found.source.offset
    return None


def _decode(record: InputRecord) -> _DecisionRecord | None:
    try:
        return _read(record.value or b"")
    except ValueError:
        return None  # not written by a bridge
