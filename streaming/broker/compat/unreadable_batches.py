# ruff: noqa: ANN401  # kafka-python is untyped
"""Tells where a batch lies that cannot be read, and lets the consumer go on with its other partitions.

Once it has met a batch with a wrong checksum, kafka-python 3.0.12 spins for ever in the next ``poll()``: it
asks an iterator that has ended for more records. Of damaged compressed data it does not say the partition.
"""

from typing import Any

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords
from typing_extensions import override

from streaming.records import HeldRecord

# What a fetch can also end with: they are about offsets and rights, not about the bytes of a batch.
_OTHER = (kafka_errors.OffsetOutOfRangeError, kafka_errors.AuthorizationError, kafka_errors.RetriableError)


class UnreadableBatchError(Exception):
    """A batch cannot be read: damaged, of an unknown codec, or too large once decompressed.

    Parameters
    ----------
    topic_partition : TopicPartition
    offset : int
        The record to read next, which lies in the batch.
    cause : Exception
    next_batch : int or None
        Offset behind the batch, as its head says; None: not known.

    Attributes
    ----------
    held : HeldRecord
        The place, what went wrong, and what a person should do.
    """

    def __init__(
        self, topic_partition: TopicPartition, offset: int, cause: Exception, next_batch: int | None = None
    ) -> None:
        super().__init__(f"the batch at offset {offset} cannot be read: {type(cause).__name__} {cause}")
        self.topic_partition = topic_partition
        self.held = HeldRecord(
            topic_partition.partition, offset, str(self), "unreadable", next_batch=next_batch
        )


class _RememberingBatches:
    """Batches of one fetch, the last of which is remembered."""

    def __init__(self, batches: MemoryRecords) -> None:
        self._batches = batches
        self._last: Any = None

    def next_batch(self) -> Any:
        """Return the next batch; None: there is none."""
        self._last = self._batches.next_batch()
        return self._last

    def find_end(self, offset: int) -> int | None:
        """Return the offset behind the batch that holds `offset`; None: its head does not say."""
        if getattr(self._last, "magic", None) != 2:  # older ones do not say
            return None
        end = int(self._last.next_offset)
        return end if end > offset else None


class _EndingRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the base is untyped
    """Records of one fetch, which end when they cannot be read."""

    topic_partition: TopicPartition
    next_fetch_offset: int

    @override
    def _unpack_records(self, tp: TopicPartition, records: Any, *deserializers: Any) -> Any:
        self._batches = _RememberingBatches(records)
        return super()._unpack_records(tp, self._batches, *deserializers)

    @override
    def take(self, n: int | None = None) -> Any:
        try:
            return super().take(n)
        except Exception as error:
            self.drain()
            offset = self.next_fetch_offset
            end = self._batches.find_end(offset)
            raise UnreadableBatchError(self.topic_partition, offset, error, end) from error


class _LocatingFetcher(Fetcher):  # type: ignore[misc]  # the base is untyped
    PartitionRecords = _EndingRecords

    @override
    def _parse_fetched_data(self, completed_fetch: Any) -> Any:
        try:
            return super()._parse_fetched_data(completed_fetch)
        except _OTHER:
            raise
        except Exception as error:
            if completed_fetch.partition_data.error_code:
                raise
            tp, offset = completed_fetch.topic_partition, completed_fetch.fetched_offset
            raise UnreadableBatchError(tp, offset, error) from error


def locate_unreadable_batches(consumer: Any) -> None:
    """Let a consumer raise `UnreadableBatchError` for a batch that it cannot read, and not spin after it."""
    consumer._fetcher.__class__ = _LocatingFetcher
