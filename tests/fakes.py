"""Stand-ins for classifier, source and sink that keep their promises, and break them on command."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from streaming.errors import (
    BatchRejected,
    BrokerUnavailable,
    NotInGroup,
    RejectedItem,
    ServiceUnavailable,
)
from streaming.ports import Classifier, GroupMembership, GroupMetadata, RebalanceListener, Sink, Source
from streaming.records import InputRecord, NextOffset, OutputRecord, ServiceDecision
from streaming.scoring.answer import read_answer
from tests.e2e.verifier import Seen
from tests.scripted_service import classify

TOPIC = "transactions"


class FakeClassifier(Classifier):
    """Decides as the scripted service does, without HTTP.

    Parameters
    ----------
    faults : iterable
        Errors to raise, one per request, before it works; None stands for a request that works.
    names_culprits : bool
        Whether a refusal says which items are bad.
    """

    def __init__(self, faults: Iterable[Exception | None] = (), names_culprits: bool = True) -> None:
        self.faults = list(faults)
        self.requests: list[int] = []
        self.before: Callable[[], None] = lambda: None
        self.poison: bytes | None = None
        self._names_culprits = names_culprits

    def classify(
        self, transactions: Sequence[bytes], identities: Sequence[str | None]
    ) -> list[ServiceDecision]:
        self.requests.append(len(transactions))
        self.before()
        if self.poison is not None and self.poison in transactions:
            raise ServiceUnavailable("The service answered 500.", "500")
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        status, answer = classify(b"[" + b",".join(transactions) + b"]")
        if status == 200:
            return read_answer(msgspec.json.encode(answer), identities)
        detail = answer["detail"] if self._names_culprits else []
        items = [RejectedItem(fault["loc"][0], fault["type"], fault["msg"]) for fault in detail]
        raise BatchRejected("bad", items)

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


@dataclass
class FakeBroker:
    """One input topic with a group's offsets, two output topics, one transaction at a time."""

    partitions: int = 2
    inputs: dict[int, list[InputRecord]] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    outputs: list[OutputRecord] = field(default_factory=list)
    generation: int = 1
    transactions: int = 0

    def produce(self, partition: int, value: bytes | None, key: bytes | None = None) -> None:
        log = self.inputs.setdefault(partition, [])
        log.append(InputRecord(TOPIC, partition, len(log), int(time.time() * 1000), key, value))

    def is_drained(self) -> bool:
        return all(self.committed.get(p, 0) == len(log) for p, log in self.inputs.items())

    def seen(self) -> tuple[list[Seen], list[Seen], list[Seen]]:
        """Return input, decisions and dead letters as the verifier wants them."""
        inputs = [
            Seen(r.topic, r.partition, r.offset, r.key, r.value) for log in self.inputs.values() for r in log
        ]
        both: dict[str, list[Seen]] = {"decision": [], "dead_letter": []}
        for place, out in enumerate(self.outputs):
            seen = Seen(out.kind, out.partition, place, out.key, out.value, tuple(out.headers))
            both[out.kind].append(seen)
        return inputs, both["decision"], both["dead_letter"]


class FakeSource(Source):
    """Reads a `FakeBroker`; rebalances when told to."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._positions: dict[int, int] = {}
        self._events: list[Callable[[], None]] = []
        self._is_paused = False
        self._listener: RebalanceListener | None = None
        self.is_joined = True
        self.pauses = 0
        self.rewinds = 0
        self.rejoins = 0
        self.held: set[int] = set()
        self.is_closed = False
        self.faults: list[Exception] = []
        self._member = self._seen_member = 0
        self._generation = broker.generation

    def start(self, listener: RebalanceListener) -> None:
        self._listener = listener
        self._join()
        self._assign(range(self._broker.partitions))
        listener.on_assigned(sorted(self._positions))

    def _assign(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._positions.setdefault(partition, self._broker.committed.get(partition, 0))

    def revoke(self, *partitions: int) -> None:
        """Let the next poll take partitions away after telling the listener."""
        self._events.append(lambda: self._take_away(partitions, is_lost=False))

    def lose(self, *partitions: int) -> None:
        """Let the next poll report partitions as lost."""
        self._events.append(lambda: self._take_away(partitions, is_lost=True))

    def give_back(self, *partitions: int) -> None:
        """Let the next poll assign partitions."""
        self._events.append(lambda: self._give(partitions))

    def evict(self, meanwhile: Callable[[], None]) -> None:
        """Let the next poll find that the group gave this member up and others did its work meanwhile."""

        def happen() -> None:
            self._broker.generation += 1  # ours is refused from now on
            meanwhile()
            self._join()
            self._member += 1

        self._events.append(happen)

    def _join(self) -> None:
        self._broker.generation += 1
        self._generation = self._broker.generation

    def _take_away(self, partitions: Sequence[int], is_lost: bool) -> None:
        assert self._listener is not None
        self._join()
        (self._listener.on_lost if is_lost else self._listener.on_revoked)(partitions)
        for partition in partitions:
            self._positions.pop(partition, None)

    def _give(self, partitions: Sequence[int]) -> None:
        assert self._listener is not None
        self._join()
        self._assign(partitions)
        self._listener.on_assigned(partitions)

    def poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        if self.faults:
            raise self.faults.pop(0)
        while self._events:
            self._events.pop(0)()
        if self._member != self._seen_member:
            self._seen_member = self._member
            raise NotInGroup("evicted")
        found: list[InputRecord] = []
        for partition, position in list(self._positions.items()):
            if self._is_paused:
                break
            if partition in self.held:
                continue
            part = self._broker.inputs.get(partition, [])[position : position + max_records - len(found)]
            self._positions[partition] = position + len(part)
            found += part
        if not found:
            time.sleep(min(timeout_ms, 2) / 1000)
        return found

    def pause(self) -> None:
        self._is_paused = True
        self.pauses += 1

    def resume(self) -> None:
        self._is_paused = False

    def hold(self, partition: int) -> None:
        self.held.add(partition)

    def release(self, partition: int) -> None:
        self.held.discard(partition)

    def rewind(self) -> None:
        self.rewinds += 1
        for partition in self._positions:
            self._positions[partition] = self._broker.committed.get(partition, 0)

    def rejoin(self) -> None:
        self.rejoins += 1

    @property
    def member_id(self) -> str:
        return f"member-{self._seen_member}"

    @property
    def last_answer(self) -> float:
        return time.monotonic()

    @property
    def has_joined(self) -> bool:
        return self.is_joined

    def group_metadata(self) -> GroupMetadata:
        if not self.is_joined or self._member != self._seen_member:
            raise NotInGroup("not in the group")
        return GroupMetadata(self._generation)

    def lags(self) -> dict[int, int]:
        return {p: len(self._broker.inputs.get(p, [])) - at for p, at in self._positions.items()}

    def close(self) -> None:
        self.is_closed = True


class FakeSink(Sink):
    """Writes to a `FakeBroker`, all or nothing.

    `faults` holds one entry per publication: None works, an exception is raised before anything
    is written, ``(exception,)`` after everything is: the commit whose answer got lost.
    """

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self.faults: list[Exception | tuple[Exception] | None] = []
        self.start_faults: list[Exception] = []
        self.starts = 0
        self.is_closed = False
        self.before: Callable[[], None] = lambda: None

    def start(self) -> None:
        self.starts += 1
        if self.start_faults:
            raise self.start_faults.pop(0)

    def publish(
        self, outputs: Sequence[OutputRecord], offsets: Mapping[int, NextOffset], metadata: GroupMetadata
    ) -> None:
        self.before()
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        if metadata != self._broker.generation:
            raise BrokerUnavailable("illegal generation")
        self._broker.outputs += self.kept(outputs)
        self._broker.committed.update({part: after.offset for part, after in offsets.items()})
        self._broker.transactions += 1
        if isinstance(fault, tuple):
            raise fault[0]

    def kept(self, outputs: Sequence[OutputRecord]) -> Sequence[OutputRecord]:
        """Return what really arrives; sinks that cheat change it."""
        return outputs

    def close(self) -> None:
        self.is_closed = True


class FakeGroupMembership(GroupMembership):
    """Says what it is told to."""

    def __init__(self) -> None:
        self.taken = threading.Event()
        self.is_unassigned = False
        self.has_left = False
        self.skip_orders: dict[tuple[int, int], str] = {}
        self.left_as = ""
        self.is_closed = False

    def is_taken(self, metadata: GroupMetadata) -> bool:
        return self.taken.is_set()

    def unassigned_partitions(self) -> frozenset[int]:
        return frozenset([7] if self.is_unassigned else [])

    def undecided(self, partitions: Collection[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 30)

    def read_skip_orders(self) -> dict[tuple[int, int], str]:
        return self.skip_orders

    def leave(self, member_id: str) -> None:
        self.has_left = True
        self.left_as = member_id

    def close(self) -> None:
        self.is_closed = True
