"""Makes records of outcomes and publishes them with the offsets, in one transaction."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from streaming.bridge.pipeline import Decided
from streaming.observability.metrics import Metrics
from streaming.output_records import dead_letter, emptied
from streaming.ports import Sink, Source
from streaming.records import InputRecord, Outcome, OutputRecord, Rejection, Verdict
from streaming.scoring.answer import decision_record

# What a record takes besides key, value and header bytes: lengths, batch header; generous.
OVERHEAD_BYTES = 512


@dataclass
class Limits:
    """Largest records that the output topics take, bytes."""

    decision: int
    dead_letter: int


class Publisher:
    """Publishes decided batches.

    Parameters
    ----------
    source : Source
        Gives the membership under which the offsets are committed.
    sink : Sink
    limits : Limits
        Read again by whoever sees `MessageTooLarge`.
    metrics : Metrics
    """

    def __init__(self, source: Source, sink: Sink, limits: Limits, metrics: Metrics) -> None:
        self._source = source
        self._sink = sink
        self.limits = limits
        self._metrics = metrics

    def __call__(self, ready: Sequence[Decided]) -> None:
        """Publish one transaction.

        Raises
        ------
        PublishFailed
            If it is not sure that all arrived.
        """
        # Taken now: should the partitions go to somebody else meanwhile, the broker refuses this one.
        membership = self._source.membership()
        begun = time.monotonic()
        at_ms = time.time_ns() // 1_000_000
        outcomes = [
            (record, outcome)
            for batch, found in ready
            for record, outcome in zip(batch.records, found, strict=True)
        ]
        outputs = [self._output(record, outcome, at_ms) for record, outcome in outcomes]
        offsets: dict[int, int] = {}
        for batch, _ in ready:
            offsets |= batch.next_offsets()
        self._metrics.spent("write", time.monotonic() - begun)
        self._sink.publish(outputs, offsets, membership)
        self._metrics.published(outcomes, time.monotonic() - begun)

    def _output(self, record: InputRecord, outcome: Outcome, at_ms: int) -> OutputRecord:
        if isinstance(outcome, Verdict):
            output = decision_record(record, outcome, at_ms)
            if _size(output) <= self.limits.decision:
                return output
            outcome = Rejection(
                "classify", "decision_too_large", "The decisions topic refuses a record of this size."
            )
        letter = dead_letter(record, outcome, at_ms)
        return letter if _size(letter) <= self.limits.dead_letter else emptied(record, outcome, at_ms)


def _size(output: OutputRecord) -> int:
    headers = sum(len(name) + len(value) + 8 for name, value in output.headers)
    return len(output.key or b"") + len(output.value or b"") + headers + OVERHEAD_BYTES
