"""What really happened to every transaction: which release decided it, when, and rightly or not."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from typing_extensions import override

from demo.ledger import Ledger, Place


class _Record(msgspec.Struct):
    transaction_id: str
    release: str
    is_fraud: bool
    source: dict[str, Any]
    decided_at_ms: int


_decode = msgspec.json.Decoder(_Record).decode


@dataclass(frozen=True)
class Outcome:
    """One decision.

    Attributes
    ----------
    number : int
        Place of the transaction in the stream, from 0.
    is_fraud, is_alarm : bool
        What is true, and what the release said.
    decided_at_ms : int
        Milliseconds since 1970.
    """

    number: int
    release: str
    is_fraud: bool
    is_alarm: bool
    decided_at_ms: int


@dataclass
class Account(Ledger):
    """A ledger that knows the truth.

    Attributes
    ----------
    fraud, place : mapping
        As in `demo.loop.data.Data`.
    made : dict
        Partition and offset to the outcome.
    produced : dict
        Place in the stream to when it was produced, milliseconds since 1970.
    """

    fraud: Any = field(default_factory=dict)
    place: Any = field(default_factory=dict)
    made: dict[Place, Outcome] = field(default_factory=dict)

    @override
    def book_decision(self, value: bytes, seen_at_ms: float) -> None:
        super().book_decision(value, seen_at_ms)
        one = _decode(value)
        name = one.transaction_id
        self.made[one.source["partition"], one.source["offset"]] = Outcome(
            self.place[name], one.release, self.fraud[name], one.is_fraud, one.decided_at_ms
        )


@dataclass(frozen=True)
class Phase:
    """How a part of the stream was decided."""

    name: str
    frauds: int
    caught: int
    alarms: int
    decisions: int

    @property
    def recall(self) -> float | None:
        """Share of the frauds with an alarm."""
        return self.caught / self.frauds if self.frauds else None

    @property
    def precision(self) -> float | None:
        """Share of the alarms that were frauds."""
        return self.caught / self.alarms if self.alarms else None


def phase(name: str, outcomes: list[Outcome]) -> Phase:
    """Count a part of the stream."""
    caught = sum(one.is_fraud and one.is_alarm for one in outcomes)
    frauds, alarms = sum(one.is_fraud for one in outcomes), sum(one.is_alarm for one in outcomes)
    return Phase(name, frauds, caught, alarms, len(outcomes))
