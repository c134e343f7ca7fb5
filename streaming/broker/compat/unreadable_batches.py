# ruff: noqa: ANN401  # kafka-python is untyped
"""Tells where a batch lies that cannot be read, and lets the consumer go on with its other partitions.

Once it has met a batch with a wrong checksum, kafka-python 3.0.12 spins for ever in the next ``poll()``: it
asks an iterator that has ended for more records. Of damaged compressed data it does not say the partition.
"""

from typing import Any

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher
from typing_extensions import override

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
    """

    def __init__(self, topic_partition: TopicPartition, offset: int, cause: Exception) -> None:
        super().__init__(f"the batch at offset {offset} cannot be read: {type(cause).__name__} {cause}")
        self.topic_partition = topic_partition
        self.offset = offset


class _EndingRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the base is untyped
    """Records of one fetch, which end when they cannot be read."""

    topic_partition: TopicPartition
    next_fetch_offset: int

    @override
    def take(self, n: int | None = None) -> Any:
        try:
            return super().take(n)
        except Exception as error:
            self.drain()
            raise UnreadableBatchError(self.topic_partition, self.next_fetch_offset, error) from error


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
