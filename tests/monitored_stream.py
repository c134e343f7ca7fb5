"""A made-up stream for the monitor: transactions, two releases' decisions, labels of every kind."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from streaming.records import InputRecord

FEATURES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
PARTITIONS = 4
DAY_MS = 86_400_000


class Sent(NamedTuple):
    """A record to send, or as it lies in its topic."""

    stream: str
    partition: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    offset: int = -1


@dataclass
class Stream:
    """All records of a story, each topic in the order of its offsets."""

    topics: dict[str, str]
    records: list[Sent]

    def inputs(self, order: random.Random | None = None) -> Iterator[InputRecord]:
        """Yield the records as they are read: each partition in order, partitions and topics mixed."""
        queues: dict[tuple[str, int], list[Sent]] = {}
        for record in self.records:
            queues.setdefault((record.stream, record.partition), []).append(record)
        rng = order or random.Random(0)
        places = dict.fromkeys(queues, 0)
        while places:
            stand = rng.choice(list(places))
            burst = rng.randrange(1, 40)
            for one in queues[stand][places[stand] : places[stand] + burst]:
                topic = self.topics[one.stream]
                yield InputRecord(topic, one.partition, one.offset, one.timestamp_ms, one.key, one.value)
            places[stand] += burst
            if places[stand] >= len(queues[stand]):
                del places[stand]


def tell(
    topics: dict[str, str],
    *,
    seed: int = 0,
    rows: int = 2000,
    now_ms: int = 1_790_000_000_000,
    span_ms: int = 3 * DAY_MS,
    first: int = 0,
    catch: float = 0.8,
    fraud_share: float = 0.05,
    shift: float = 0.0,
    releases: tuple[str, str] = ("12", "13"),
    shadow: bool = True,
    offsets: dict[tuple[str, int], int] | None = None,
) -> Stream:
    """Return a story: `rows` transactions that end at `now_ms`, decided by both releases, many labelled."""
    rng = random.Random(seed)
    records: list[Sent] = []
    at_offset = offsets if offsets is not None else {}

    def send(stream: str, partition: int, timestamp_ms: int, key: bytes | None, value: Any) -> int:
        offset = at_offset.get((stream, partition), 0)
        at_offset[stream, partition] = offset + 1
        body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        records.append(Sent(stream, partition, timestamp_ms, key, body, offset))
        return offset

    for number in range(first, first + rows):
        name = f"T-{seed}-{number}"
        key, partition = name.encode(), rng.randrange(PARTITIONS)
        at_ms = now_ms - span_ms + (number - first + 1) * span_ms // rows
        is_fraud = rng.random() < fraud_share
        amount = round(rng.lognormvariate(4, 1.5), 2)
        values = {feature: round(rng.gauss(0, 1), 4) for feature in FEATURES}
        values |= {"Time": number, "V14": round(rng.gauss(shift, 1), 4), "Amount": amount}
        if rng.random() < 0.01:
            send("transactions", partition, at_ms, key, b"{")  # a dead letter: never decided
        offset = send("transactions", partition, at_ms, key, {"transaction_id": name, **values})
        source = {"topic": topics["transactions"], "partition": partition, "offset": offset}
        kinds = _decide(rng, is_fraud, catch), _decide(rng, is_fraud, catch + 0.1)
        for stream, release, kind in zip(("decisions", "shadow"), releases, kinds, strict=True):
            if stream == "decisions" or shadow:
                send(
                    stream, partition, at_ms + 50, key, _decision(rng, name, kind, release, source, is_fraud)
                )
        for label in _labels(rng, name, at_ms, is_fraud, kinds[0]):
            arrived_ms = label.pop("arrived_ms")
            if arrived_ms <= now_ms:  # the others have not come yet
                send("labels", partition, arrived_ms, key, label.pop("value", label))
    for number in range(20):
        name = f"nobody-{seed}-{number}"
        label = {"transaction_id": name, "is_fraud": True, "labelled_at_ms": now_ms, "origin": "chargeback"}
        send("labels", number % PARTITIONS, now_ms, name.encode(), label)
        send("labels", number % PARTITIONS, now_ms, name.encode(), b"not a label")
    return Stream(topics, records)


def _decide(rng: random.Random, is_fraud: bool, catch: float) -> str:
    if rng.random() < (catch if is_fraud else 0.01):
        return rng.choice(("review", "decline"))
    return "costly" if rng.random() < 0.03 else "approve"


def _decision(
    rng: random.Random, name: str, kind: str, release: str, source: dict[str, Any], is_fraud: bool
) -> dict[str, Any]:
    by_loss = kind == "costly"  # reviewed for its expected loss: no model is alarmed
    kind = "review" if by_loss else kind
    return {
        "transaction_id": name,
        "decision": kind,
        "is_fraud": kind != "approve" and not by_loss,
        "fraud_probability": rng.random() * (0.9 if is_fraud else 0.1),
        "risk_level": {"approve": "LOW", "review": "MEDIUM", "decline": "HIGH"}[kind],
        "raised_by": ["expected_loss"] if by_loss else ["xgboost"] if kind != "approve" else [],
        "scores": {"neural_net": rng.random(), "xgboost": rng.random()},
        "release": release,
        "models": {},
        "source": source,
        "decided_at_ms": 0,
    }


def _labels(rng: random.Random, name: str, at_ms: int, is_fraud: bool, kind: str) -> Iterator[dict[str, Any]]:
    def label(verdict: bool | None, after_ms: int, origin: str, late_ms: int = 0) -> dict[str, Any]:
        return {
            "transaction_id": name,
            "is_fraud": verdict,
            "labelled_at_ms": at_ms + after_ms,
            "origin": origin,
            "arrived_ms": at_ms + max(0, after_ms) + late_ms,
        }

    hour = 3_600_000
    if kind != "approve":
        yield label(is_fraud, rng.randrange(1, 8) * hour // 4, "investigation")
    elif is_fraud and rng.random() < 0.9:
        yield label(True, rng.randrange(1, 48) * hour // 2, "chargeback", rng.randrange(3) * hour)
    if rng.random() < 0.1:
        yield label(is_fraud, 2 * hour, "control")
    yield from _awkward(rng.random(), label, is_fraud, at_ms)


def _awkward(
    chance: float, label: Callable[..., dict[str, Any]], is_fraud: bool, at_ms: int
) -> Iterator[dict[str, Any]]:
    hour = 3_600_000
    if chance < 0.02:  # contradicted, the newer one first on its way
        yield label(not is_fraud, 30 * hour, "chargeback")
        yield label(is_fraud, 20 * hour, "chargeback")
    elif chance < 0.04:  # the same twice
        yield label(is_fraud, 3 * hour, "chargeback")
        yield label(is_fraud, 3 * hour, "chargeback")
    elif chance < 0.06:  # withdrawn
        yield label(is_fraud, 4 * hour, "investigation")
        yield label(None, 40 * hour, "investigation")
    elif chance < 0.07:  # withdrawn by a tombstone
        yield label(is_fraud, 4 * hour, "investigation")
        yield label(is_fraud, 4 * hour, "chargeback") | {"value": None, "arrived_ms": at_ms + 41 * hour}
    elif chance < 0.09:  # known before it was decided
        yield label(is_fraud, -hour, "control")
    elif chance < 0.10:  # two at the same moment
        yield label(False, 5 * hour, "chargeback")
        yield label(True, 5 * hour, "chargeback")
