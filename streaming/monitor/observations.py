"""What the monitor takes from a transaction and from a decision record."""

import hashlib
import struct
import time

import msgspec

from streaming.output_records import SourcePlace
from streaming.records import InputRecord

FEATURES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
AMOUNT = FEATURES.index("Amount")
SCORES = ("neural_net", "xgboost", "fraud_probability")
DECISIONS = ("approve", "review", "decline")
# A review for its expected loss alone: no model is alarmed, so it counts for the load, not for recall.
APPROVE, REVIEW, DECLINE, UNALARMED_REVIEW = range(4)
CHAMPION, CHALLENGER, PAIR = range(3)
ROLES = ("champion", "challenger")

_integer = struct.Struct(">q").unpack
_Transaction = msgspec.defstruct(
    "_Transaction",
    [*((name, float) for name in FEATURES), ("transaction_id", str | None, None)],
    gc=False,
)
_read_transaction = msgspec.json.Decoder(_Transaction).decode
_values = msgspec.structs.astuple


class _Scores(msgspec.Struct, gc=False):
    neural_net: float
    xgboost: float


class _Decision(msgspec.Struct, gc=False):
    decision: str
    fraud_probability: float
    scores: _Scores
    release: str
    source: SourcePlace
    is_fraud: bool = True
    transaction_id: str | None = None


_read_decision = msgspec.json.Decoder(_Decision).decode


class Payment(msgspec.Struct, gc=False):
    """One transaction, as far as it is kept.

    Attributes
    ----------
    partition, offset
        Where it stands in its topic.
    at_ms : int
        When it was produced, milliseconds since 1970; never in the future.
    amount : float
        Account currency.
    identity : int or None
        Its hashed id; None where it has none, so that no label can find it.
    values : tuple of float
        The 30 features, in the order of `FEATURES`.
    """

    partition: int
    offset: int
    at_ms: int
    amount: float
    identity: int | None
    values: tuple[float, ...]


class ReleaseDecision(msgspec.Struct, gc=False):
    """One release's decision on one transaction.

    Attributes
    ----------
    role : int
        `CHAMPION` or `CHALLENGER`.
    partition, offset
        Where the transaction stands in its topic.
    decision : int
        `APPROVE`, `REVIEW`, `DECLINE` or `UNALARMED_REVIEW`.
    scores : tuple of float
        In the order of `SCORES`.
    """

    role: int
    partition: int
    offset: int
    release: str
    decision: int
    identity: int | None
    scores: tuple[float, float, float]


def hash_identity(text: bytes) -> int:
    """Return the 64-bit number under which an id is kept.

    Two of 7.8 billion ids, 90 days at 1,000 a second, share one with a probability of .8 (birthday bound),
    and then a label must meet just those.
    """
    return int(_integer(hashlib.blake2b(text, digest_size=8).digest())[0])


def _identity(name: str | None, key: bytes | None) -> int | None:
    if name is not None:
        return hash_identity(name.encode("utf-8", "surrogatepass"))
    return hash_identity(key) if key is not None else None


def read_payment(record: InputRecord, now_ms: int | None = None) -> Payment | None:
    """Return the transaction in a record; None where none can be read: that one is a dead letter."""
    try:
        found = _read_transaction(record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    values = _values(found)
    identity = _identity(values[-1], record.key)
    at_ms = clamp_time(record.timestamp_ms, now_ms)
    return Payment(record.partition, record.offset, at_ms, values[AMOUNT], identity, values[:-1])


def read_decision(record: InputRecord, role: int, input_topic: str) -> ReleaseDecision | str:
    """Return the decision in a record, or why there is none: ``"unreadable"``, ``"foreign"``."""
    try:
        found = _read_decision(record.value or b"")
        decision = DECISIONS.index(found.decision)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return "unreadable"
    if decision == REVIEW and not found.is_fraud:
        decision = UNALARMED_REVIEW
    source = found.source
    if source.topic != input_topic:
        return "foreign"
    return ReleaseDecision(
        role,
        source.partition,
        source.offset,
        found.release,
        decision,
        _identity(found.transaction_id, record.key),
        (found.scores.neural_net, found.scores.xgboost, found.fraud_probability),
    )


def clamp_time(timestamp_ms: int, now_ms: int | None = None) -> int:
    """Return a record's time; now where the record has none, or where its producer's clock runs ahead.

    One record from the year 2100 must not age all others.
    """
    now_ms = int(time.time() * 1000) if now_ms is None else now_ms
    return timestamp_ms if 0 <= timestamp_ms <= now_ms else now_ms
