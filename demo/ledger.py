"""What went into the stream, what came out of it, and whether each went with the other."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

#: Partition and offset of a record in the input topic.
Place: TypeAlias = tuple[int, int]


class Source(msgspec.Struct):
    """Where the decided transaction was read."""

    topic: str
    partition: int
    offset: int


class DecisionRecord(msgspec.Struct):
    """The parts of a decision record that the summary needs."""

    transaction_id: str | None
    decision: str
    is_fraud: bool
    source: Source
    release: str


@dataclass(frozen=True)
class Decided:
    """One decision as a reader saw it.

    Attributes
    ----------
    latency_ms : float
        From the producer's timestamp of the transaction to the decision in the reader's hands.
    """

    transaction_id: str | None
    decision: str
    is_alarm: bool
    latency_ms: float


@dataclass
class Ledger:
    """Books every input record against its outcomes by source triple."""

    produced_at_ms: dict[Place, int] = field(default_factory=dict)
    outcomes: Counter[Place] = field(default_factory=Counter)
    decided: dict[Place, Decided] = field(default_factory=dict)
    dead_letters: Counter[str] = field(default_factory=Counter)
    releases: set[str] = field(default_factory=set)
    _early: list[tuple[DecisionRecord, float]] = field(default_factory=list)

    def book_input(self, place: Place, timestamp_ms: int) -> None:
        """Book a record of the input topic."""
        self.produced_at_ms[place] = timestamp_ms

    def book_decision(self, value: bytes, seen_at_ms: float) -> None:
        """Book a record of the decisions topic."""
        record = _DECODER.decode(value)
        place = (record.source.partition, record.source.offset)
        self.outcomes[place] += 1
        self.releases.add(record.release)
        # Topics are read side by side: a decision can come before its transaction.
        self._early.append((record, seen_at_ms))

    def book_dead_letter(self, place: Place, reason: str) -> None:
        """Book a record of the dead-letter topic."""
        self.outcomes[place] += 1
        self.dead_letters[reason] += 1

    def settle(self) -> list[Decided]:
        """Join decisions with the transactions they decide; return those joined now."""
        waiting, joined = [], []
        for record, seen_at_ms in self._early:
            place = (record.source.partition, record.source.offset)
            produced = self.produced_at_ms.get(place)
            if produced is None:
                waiting.append((record, seen_at_ms))
                continue
            decided = Decided(record.transaction_id, record.decision, record.is_fraud, seen_at_ms - produced)
            self.decided[place] = decided
            joined.append(decided)
        self._early = waiting
        return joined

    @property
    def lost(self) -> int:
        """Input records without any outcome."""
        return sum(1 for place in self.produced_at_ms if not self.outcomes[place])

    @property
    def duplicates(self) -> int:
        """Outcomes beyond the first of a record."""
        return sum(count - 1 for count in self.outcomes.values() if count > 1)

    @property
    def strangers(self) -> int:
        """Outcomes whose source triple names no input record."""
        return sum(1 for place in self.outcomes if place not in self.produced_at_ms)

    def is_complete(self, expected: int) -> bool:
        """Say whether `expected` inputs were read and each has an outcome."""
        return len(self.produced_at_ms) >= expected and self.lost == 0


_DECODER = msgspec.json.Decoder(DecisionRecord)
