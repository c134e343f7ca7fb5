"""Decides a range of transactions again, to another topic, and tells which decisions changed."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streaming.bridge.batch import Batch, split_into_batches
from streaming.errors import ServiceError
from streaming.output_records import make_decision_record
from streaming.ports import GroupMetadata, Sink
from streaming.records import (
    DecidedOutcome,
    InputRecord,
    Outcome,
    OutputRecord,
    Rejection,
    ServiceDecision,
    Undecided,
)
from streaming.reprocessing.decision_table import EarlierDecision, SourceOffset

KIND = "decision"
MAX_EXAMPLES = 20

RecordId = tuple[str, int, int]
"""Topic, partition and offset of a transaction."""


def without_decided(
    records: Iterable[list[InputRecord]], decided: Mapping[SourceOffset, EarlierDecision]
) -> Iterator[list[InputRecord]]:
    """Yield records but those that have a decision already."""
    for chunk in records:
        left = [record for record in chunk if (record.partition, record.offset) not in decided]
        if left:
            yield left


@dataclass
class Comparison:
    """What a backfill found; `changes` holds every change, `as_document` the first of them."""

    decided: Counter[str] = field(default_factory=Counter)
    undecidable: Counter[str] = field(default_factory=Counter)
    releases: Counter[str] = field(default_factory=Counter)
    earlier_releases: Counter[str] = field(default_factory=Counter)
    unchanged: int = 0
    without_earlier: int = 0
    decided_before: int = 0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: InputRecord, outcome: Outcome, earlier: EarlierDecision | None) -> None:
        """Take one transaction in."""
        if isinstance(outcome, Rejection):
            self.undecidable[f"{outcome.stage}: {outcome.reason}"] += 1
            return
        record_id = (record.topic, record.partition, record.offset)
        self._count(record_id, EarlierDecision(outcome.decision, outcome.release), earlier)

    def add_before(
        self, record_id: RecordId, found: EarlierDecision, earlier: EarlierDecision | None
    ) -> None:
        """Take in a transaction that an interrupted run of the same backfill has decided."""
        self.decided_before += 1
        self._count(record_id, found, earlier)

    def _count(self, record_id: RecordId, now: EarlierDecision, earlier: EarlierDecision | None) -> None:
        self.decided[now.decision] += 1
        self.releases[now.release] += 1
        if earlier is None:
            self.without_earlier += 1
            return
        self.earlier_releases[earlier.release] += 1
        if earlier.decision == now.decision:
            self.unchanged += 1
            return
        self.changes[earlier.decision, now.decision] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(_example(record_id, earlier, now))

    def as_document(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        changes = [{"from": old, "to": new, "count": n} for (old, new), n in sorted(self.changes.items())]
        return {
            "decided": dict(self.decided),
            "decided_before": self.decided_before,
            "undecidable": dict(self.undecidable),
            "releases": dict(self.releases),
            "earlier_releases": dict(self.earlier_releases),
            "unchanged": self.unchanged,
            "changed": self.changes.total(),
            "without_earlier_decision": self.without_earlier,
            "changes": changes,
            "examples": self.examples,
        }

    def as_json(self) -> str:
        """Return `as_document` as text."""
        return json.dumps(self.as_document(), indent=2)


def _example(record_id: RecordId, earlier: EarlierDecision, now: EarlierDecision) -> dict[str, Any]:
    topic, partition, offset = record_id
    return {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "from": earlier.decision,
        "to": now.decision,
        "from_release": earlier.release,
        "to_release": now.release,
    }


@dataclass(frozen=True)
class BatchLimits:
    """Limits of one request and one transaction."""

    records: int
    bytes: int


def backfill(  # what it reads, decides, writes and compares with
    records: Iterable[list[InputRecord]],
    decide: Callable[[Batch], list[DecidedOutcome]],
    sink: Sink,
    metadata: GroupMetadata,
    earlier: Mapping[SourceOffset, EarlierDecision],
    limits: BatchLimits,
    report: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Decide transactions again.

    Parameters
    ----------
    records : iterable of list of InputRecord
    decide : callable
    sink : Sink
        Takes the decisions, and the progress in the same transaction.
    metadata : GroupMetadata
    earlier : mapping of tuple to EarlierDecision
        What was decided on them before.
    limits : BatchLimits
    report : callable
        Told the number done after each transaction.

    Returns
    -------
    Comparison
        Transactions that cannot be decided are counted in it and written nowhere: the bridge that
        saw them first has made dead letters of them.
    """
    comparison = Comparison()
    done = 0
    batches = (
        batch for chunk in records for batch in split_into_batches(chunk, limits.records, limits.bytes)
    )
    for batch in batches:
        outcomes = [_require(*pair) for pair in zip(batch.records, decide(batch), strict=True)]
        sink.publish(list(_outputs(outcomes)), batch.next_offsets(), metadata)
        for record, outcome in outcomes:
            comparison.add(record, outcome, earlier.get((record.partition, record.offset)))
        done += len(batch)
        report(done)
    return comparison


def _require(record: InputRecord, outcome: DecidedOutcome) -> tuple[InputRecord, Outcome]:
    if isinstance(outcome, Undecided):
        where = f"{record.topic}, partition {record.partition}, offset {record.offset}"
        message = f"The service fails on {where}, though it decides others: {outcome.error}"
        raise ServiceError(f"{message} Mend the service and run the same command again.")
    return record, outcome


def _outputs(outcomes: Iterable[tuple[InputRecord, Outcome]]) -> Iterator[OutputRecord]:
    at_ms = time.time_ns() // 1_000_000
    for record, outcome in outcomes:
        if isinstance(outcome, ServiceDecision):
            yield make_decision_record(record, outcome, at_ms)
