"""Reads from the ends of the output topics up to which offset the input has been decided.

A group's offsets expire after ``offsets.retention.minutes`` without a member. Such a group is not new: what
it has decided stands in the output topics.
"""

from collections.abc import Iterable

from streaming.broker.range_reader import RangeReader
from streaming.errors import SettingsError
from streaming.output_records import RecordSource, read_source
from streaming.records import InputRecord
from streaming.settings.load import Settings

# The input's partition decides the output's, and each is in order: the last records tell. Several partitions
# of the input may share one of the output, and transaction markers take offsets.
LOOK_BACK = 5_000


def find_decided_offsets(settings: Settings, partitions: Iterable[int]) -> dict[int, int]:
    """Return, by partition of the input, the offset after the last one that has an outcome.

    Partitions without an outcome, and those whose input was made again since, are left out.

    Raises
    ------
    BrokerUnavailable, BrokerRefused
        If the topics cannot be read.
    """
    names, wanted = settings.topics, set(partitions)
    last: dict[int, RecordSource] = {}
    with RangeReader(settings.kafka) as reader:
        for topic in (names.output, names.dead_letter):
            for record in _read_ends(reader, topic):
                source = read_source(record)
                if source is None or source.topic != names.input or source.partition not in wanted:
                    continue
                before = last.get(source.partition)
                if before is None or before.offset < source.offset:
                    last[source.partition] = source
        return {
            partition: source.offset + 1
            for partition, source in last.items()
            if _is_of_this_topic(reader, names.input, source)
        }


def _read_ends(reader: RangeReader, topic: str) -> Iterable[InputRecord]:
    try:
        first, end = (reader.resolve(topic, bound) for bound in ("earliest", "latest"))
    except SettingsError:
        return []  # there is no such topic yet
    starts = {partition: max(first[partition], offset - LOOK_BACK) for partition, offset in end.items()}
    return [record for chunk in reader.read(topic, starts, end) for record in chunk]


def _is_of_this_topic(reader: RangeReader, topic: str, source: RecordSource) -> bool:
    """Return whether a source names a record of the present topic, not of an earlier one of its name."""
    first, end = (reader.resolve(topic, bound) for bound in ("earliest", "latest"))
    partition, offset = source.partition, source.offset
    if offset >= end.get(partition, 0):
        return True  # `choose_start` sees that the topic is shorter
    if offset < first[partition]:
        return True  # removed since: nothing to compare with
    for chunk in reader.read(topic, {partition: offset}, {partition: offset + 1}):
        for record in chunk:
            return record.key == source.key and record.timestamp_ms <= source.decided_at_ms
    return True
