"""Makes records of outcomes and publishes them with the offsets, in one transaction."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streaming.bridge.pipeline import DecidedBatch
from streaming.bridge_state import BridgeState
from streaming.errors import MessageTooLarge, RecordsHeld
from streaming.observability.metrics import Metrics
from streaming.output_records import (
    make_dead_letter,
    make_dead_letter_without_bytes,
    make_decision_record,
)
from streaming.ports import Sink, Source
from streaming.records import (
    HeldRecord,
    InputRecord,
    NextOffset,
    Outcome,
    OutputRecord,
    Rejection,
    ServiceDecision,
    Undecided,
)

# What a record takes besides key, value and header bytes: lengths, batch header; generous.
OVERHEAD_BYTES = 512
# No decision that the service makes without reasons is larger; a topic that takes less is set up wrongly.
USUAL_DECISION_BYTES = 16_384
# Limits are read again before a decision is called too large, but not for each record.
LIMITS_MAX_AGE_S = 1.0


@dataclass(frozen=True)
class RecordSizeLimits:
    """Largest records that the output topics take, bytes; None where the broker does not tell."""

    decision: int | None
    dead_letter: int | None


class Publisher:
    """Publishes decided batches.

    Parameters
    ----------
    source : Source
        Gives the group metadata under which the offsets are committed.
    sink : Sink
    read_limits : callable
        Asks the broker for the limits of the output topics.
    metrics : Metrics
    state : BridgeState
        Told of each commit.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        read_limits: Callable[[], RecordSizeLimits],
        metrics: Metrics,
        state: BridgeState,
    ) -> None:
        self._source = source
        self._sink = sink
        self._read_limits = read_limits
        self._limits = read_limits()
        self._limits_read_at = time.monotonic()
        self._metrics = metrics
        self._state = state

    def __call__(self, batches: Sequence[DecidedBatch]) -> None:
        """Publish one transaction.

        Raises
        ------
        PublishFailed
            If it is not sure that all arrived.
        RecordsHeld
            If records are undecided; what stands before them was published.
        """
        # Taken now: if the partitions move to another member meanwhile, the broker refuses this commit.
        metadata = self._source.group_metadata()
        begun = time.monotonic()
        at_ms = time.time_ns() // 1_000_000
        decided, held = _separate(batches)
        outputs = [self._make_output(record, outcome, at_ms) for record, outcome in decided]
        last = {record.partition: record for record, _ in decided}
        offsets = {
            partition: NextOffset(record.offset + 1, record.leader_epoch)
            for partition, record in last.items()
        }
        self._metrics.add_stage_seconds("write", time.monotonic() - begun)
        if offsets:
            self._sink.publish(outputs, offsets, metadata)
            self._state.committed |= {partition: after.offset for partition, after in offsets.items()}
            self._state.last_commit = time.monotonic()
            self._metrics.count_transaction(decided, time.monotonic() - begun)
        if held:
            raise RecordsHeld(held)

    def refresh_limits(self) -> None:
        """Read the limits of the output topics again.

        Raises
        ------
        BrokerError
            If the broker does not answer or refuses.
        """
        self._limits = self._read_limits()
        self._limits_read_at = time.monotonic()

    def _make_output(self, record: InputRecord, outcome: Outcome, at_ms: int) -> OutputRecord:
        if isinstance(outcome, ServiceDecision):
            output = make_decision_record(record, outcome, at_ms)
            if self._fits(output, self._limits.decision):
                return output
            self._raise_if_nothing_fits()
            outcome = Rejection(
                "classify", "decision_too_large", "The decisions topic refuses a record of this size."
            )
        letter = make_dead_letter(record, outcome, at_ms)
        if self._fits(letter, self._limits.dead_letter):
            return letter
        return make_dead_letter_without_bytes(record, outcome, at_ms)

    def _fits(self, output: OutputRecord, limit: int | None) -> bool:
        if limit is None or (size := _size(output)) <= limit:
            return True
        # A limit that was lowered for a moment must not send sound transactions to the dead letters.
        if time.monotonic() - self._limits_read_at > LIMITS_MAX_AGE_S:
            self.refresh_limits()
            limit = self._limits.decision if output.kind == "decision" else self._limits.dead_letter
        return limit is None or size <= limit

    def _raise_if_nothing_fits(self) -> None:
        limit = self._limits.decision
        if limit is not None and limit < USUAL_DECISION_BYTES:
            raise MessageTooLarge(
                f"The decisions topic takes records of {limit} bytes at most, which is too little for "
                f"decisions: set its max.message.bytes to {USUAL_DECISION_BYTES} or more."
            )


def _separate(
    batches: Sequence[DecidedBatch],
) -> tuple[list[tuple[InputRecord, Outcome]], list[HeldRecord]]:
    """Return what can be published, and the records that hold their partitions back."""
    decided: list[tuple[InputRecord, Outcome]] = []
    held: dict[int, HeldRecord] = {}
    for batch, outcomes in batches:
        for record, outcome in zip(batch.records, outcomes, strict=True):
            if record.partition in held:
                continue  # behind one that is held: the order within a partition is kept
            if isinstance(outcome, Undecided):
                held[record.partition] = HeldRecord(record.partition, record.offset, outcome.error)
            else:
                decided.append((record, outcome))
    return decided, list(held.values())


def _size(output: OutputRecord) -> int:
    size = len(output.key or b"") + len(output.value or b"") + OVERHEAD_BYTES
    if output.headers:  # few inputs have any, and this runs for each record
        size += sum(len(name) + len(value) + 8 for name, value in output.headers)
    return size
