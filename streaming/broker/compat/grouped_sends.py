# ruff: noqa: ANN401  # kafka-python is untyped, and this is where its private parts are used
"""Hands all records for one partition to a producer at once.

``KafkaProducer.send`` of kafka-python 3.0.12 costs several times what the encoding of a record does: for
each it formats its own name for a log that is off, looks the partition up three times, takes five locks and
makes a future with a lock of its own. Here the first record for a partition goes that way, with all of its
checks; the others follow it into the same batch under one lock, and the batch answers for them.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from streaming.records import OutputRecord

# Magic of the record format that transactions need.
MESSAGE_VERSION = 2


class SentBatch(NamedTuple):
    """Consecutive records of one partition that share the broker's answer.

    Attributes
    ----------
    future : FutureProduceResult
        Done when the broker has answered, whatever it says.
    outputs : list of OutputRecord
    """

    future: Any
    outputs: list[OutputRecord]

    def wait(self, timeout_s: float) -> tuple[OutputRecord, Exception] | None:
        """Wait for the answer; return the first record that was not taken and why, None when all were."""
        if not self.future.wait(timeout_s):
            late = kafka_errors.KafkaTimeoutError(f"no answer within {timeout_s:g} s")
            return self.outputs[0], late
        if self.future.failed():
            return self.outputs[0], self.future.exception
        # A batch that the broker refuses succeeds too, with a function from index to error.
        _, _, find_error = self.future.value
        if find_error is None:
            return None
        errors = [(output, find_error(index)) for index, output in enumerate(self.outputs)]
        # The records beside the one that is wrong get a bare KafkaError.
        named = (one for one in errors if type(one[1]) is not kafka_errors.KafkaError)
        return next(named, errors[0])


def send_records(producer: Any, tp: TopicPartition, outputs: Sequence[OutputRecord]) -> list[SentBatch]:
    """Hand records over, in their order, to a producer whose batches are never split (`forbid_splitting`).

    Raises
    ------
    kafka.errors.KafkaError
        As ``KafkaProducer.send`` does.
    AssertionError, ValueError
        If the topic has no such partition.
    """
    first = outputs[0]
    future = producer.send(
        tp.topic, value=first.value, key=first.key, headers=first.headers, partition=tp.partition
    )
    sent = [SentBatch(future._produce_future, [first])]
    if len(outputs) > 1:
        _append(producer, tp, outputs[1:], sent)
        producer._sender.wakeup()
    return sent


def _append(
    producer: Any, tp: TopicPartition, outputs: Sequence[OutputRecord], sent: list[SentBatch]
) -> None:
    accumulator = producer._accumulator
    largest = producer.config["max_request_size"]
    at_ms = int(time.time() * 1000)
    # Whoever closes the producer by force waits until nothing is being added.
    accumulator._appends_in_progress.increment()
    try:
        with accumulator._tp_lock(tp):
            if accumulator._closed:
                raise kafka_errors.IllegalStateError("The producer is closed.")
            batches = accumulator._batches[tp]
            batch = batches[-1] if batches else _open_batch(accumulator, tp)
            for output in outputs:
                taken = batch.records.append(at_ms, output.key, output.value, output.headers)
                if taken is None:  # full, or on its way
                    batch = _open_batch(accumulator, tp)
                    taken = batch.records.append(at_ms, output.key, output.value, output.headers)
                if taken.size > largest:
                    raise kafka_errors.MessageSizeTooLargeError(f"A record has {taken.size} bytes.")
                if batch.produce_future is not sent[-1].future:
                    sent.append(SentBatch(batch.produce_future, []))
                sent[-1].outputs.append(output)
    finally:
        accumulator._appends_in_progress.decrement()


def _open_batch(accumulator: Any, tp: TopicPartition) -> Any:
    """Return a new batch at the end of a partition's queue; it takes a first record of any size."""
    config = accumulator.config
    records = MemoryRecordsBuilder(MESSAGE_VERSION, config["compression_attrs"], config["batch_size"])
    batch = ProducerBatch(tp, records)
    accumulator._batches[tp].append(batch)
    accumulator._incomplete.add(batch)
    return batch


def forbid_splitting(producer: Any) -> None:
    """Let a batch that is too large for its topic fail, where kafka-python would send it in two halves.

    Halves would have futures of their own, which nobody here would wait for. A new producer with smaller
    batches takes the place of this one.
    """
    producer._sender._can_split = lambda batch, error: False
