"""Sends the labels of a file to their topic, at a rate or flat out, and what is no label to dead letters."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from streaming.labels.label_files import LabelRow
from streaming.labels.records import Label, LabelRejection, write_label
from streaming.output_records import PREFIX
from streaming.records import Headers
from streaming.replay.rate_limiter import RateLimiter

_encode = msgspec.json.Encoder(enc_hook=str).encode


class RecordSender(Protocol):
    """Where labels go: `broker.idempotent_producer.IdempotentProducer`, or a list in tests."""

    def send(self, topic: str, key: bytes | None, value: bytes, headers: Headers | None = None) -> None:
        """Hand one record over."""

    def flush(self) -> None:
        """Wait until everything is acknowledged."""


@dataclass(frozen=True)
class LabelTopics:
    """Where labels go, and what is no label."""

    labels: str
    dead_letter: str


@dataclass
class Labelled:
    """What was sent: labels by what they say, and dead letters by reason."""

    labels: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Rows of the file that were read."""
        return self.labels.total() + self.rejected.total()


def send_labels(
    rows: Iterable[LabelRow],
    sender: RecordSender,
    topics: LabelTopics,
    limiter: RateLimiter,
    report: Callable[[int], None] = lambda rows: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Labelled:
    """Send labels until the rows end, each row to exactly one of the topics.

    Parameters
    ----------
    rows : iterable of LabelRow
    sender : RecordSender
    topics : LabelTopics
    limiter : RateLimiter
    report : callable
        Told the number of rows after each chunk.
    is_stopped : callable
        Whether to end before the rows do.

    Returns
    -------
    Labelled
        Once the broker has acknowledged all.
    """
    waiting = iter(rows)
    begun = time.perf_counter()
    done = Labelled()
    while not is_stopped():
        chunk = list(itertools.islice(waiting, limiter.next_chunk()))
        if not chunk:
            break
        for row in chunk:
            _send(row, sender, topics, done)
        report(done.rows)
    sender.flush()
    done.seconds = time.perf_counter() - begun
    return done


def _send(row: LabelRow, sender: RecordSender, topics: LabelTopics, done: Labelled) -> None:
    if isinstance(row.label, Label):
        sender.send(topics.labels, *write_label(row.label))
        said = {True: "fraud", False: "genuine", None: "withdrawn"}[row.label.is_fraud]
        done.labels[said] += 1
    else:
        key = str(row.cells.get("transaction_id") or row.number).encode("utf-8", "replace")
        sender.send(
            topics.dead_letter, key, _encode(dict(row.cells)), _headers(row, row.label, topics.labels)
        )
        done.rejected[row.label.reason] += 1


def _headers(row: LabelRow, rejection: LabelRejection, topic: str) -> Headers:
    fields = {
        "topic": topic,
        "row": row.number,
        "stage": "label",
        "reason": rejection.reason,
        "message": rejection.message,
        "attempts": 0,
        "at_ms": time.time_ns() // 1_000_000,
    }
    return [(PREFIX + name, str(value).encode()) for name, value in fields.items()]
