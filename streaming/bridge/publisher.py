"""Makes records of outcomes and publishes them with the offsets, in one transaction."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from streaming.bridge.pipeline import DecidedBatch
from streaming.bridge_state import BridgeState
from streaming.observability.metrics import Metrics
from streaming.output_records import (
    make_dead_letter,
    make_dead_letter_without_bytes,
    make_decision_record,
)
from streaming.ports import Sink, Source
from streaming.records import InputRecord, NextOffset, Outcome, OutputRecord, Rejection, ServiceDecision

# What a record takes besides key, value and header bytes: lengths, batch header; generous.
OVERHEAD_BYTES = 512


@dataclass
class RecordSizeLimits:
    """Largest records that the output topics take, bytes."""

    decision: int
    dead_letter: int


class Publisher:
    """Publishes decided batches.

    Parameters
    ----------
    source : Source
        Gives the group metadata under which the offsets are committed.
    sink : Sink
    limits : RecordSizeLimits
        Replaced after the topics have refused a record for its size.
    metrics : Metrics
    state : BridgeState
        Told of each commit.
    """

    def __init__(
        self, source: Source, sink: Sink, limits: RecordSizeLimits, metrics: Metrics, state: BridgeState
    ) -> None:
        self._source = source
        self._sink = sink
        self.limits = limits
        self._metrics = metrics
        self._state = state

    def __call__(self, batches: Sequence[DecidedBatch]) -> None:
        """Publish one transaction.

        Raises
        ------
        PublishFailed
            If it is not sure that all arrived.
        """
        # Taken now: if the partitions move to another member meanwhile, the broker refuses this commit.
        metadata = self._source.group_metadata()
        begun = time.monotonic()
        at_ms = time.time_ns() // 1_000_000
        decided = [
            (record, outcome)
            for batch, outcomes in batches
            for record, outcome in zip(batch.records, outcomes, strict=True)
        ]
        outputs = [self._make_output(record, outcome, at_ms) for record, outcome in decided]
        offsets: dict[int, NextOffset] = {}
        for batch, _ in batches:
            offsets |= batch.next_offsets()
        self._metrics.add_stage_seconds("write", time.monotonic() - begun)
        self._sink.publish(outputs, offsets, metadata)
        self._state.last_commit = time.monotonic()
        self._metrics.count_transaction(decided, time.monotonic() - begun)

    def _make_output(self, record: InputRecord, outcome: Outcome, at_ms: int) -> OutputRecord:
        if isinstance(outcome, ServiceDecision):
            output = make_decision_record(record, outcome, at_ms)
            if _size(output) <= self.limits.decision:
                return output
            outcome = Rejection(
                "classify", "decision_too_large", "The decisions topic refuses a record of this size."
            )
        letter = make_dead_letter(record, outcome, at_ms)
        if _size(letter) <= self.limits.dead_letter:
            return letter
        return make_dead_letter_without_bytes(record, outcome, at_ms)


def _size(output: OutputRecord) -> int:
    headers = sum(len(name) + len(value) + 8 for name, value in output.headers)
    return len(output.key or b"") + len(output.value or b"") + headers + OVERHEAD_BYTES
