"""Sorts records by stream and reads them into a batch."""

import time
from collections.abc import Iterable, Mapping

from streaming.labels.records import ORIGINS, Label, read_label
from streaming.monitor.observations import (
    CHALLENGER,
    CHAMPION,
    clamp_time,
    hash_identity,
    read_decision,
    read_payment,
)
from streaming.monitor.store.labelling import Given
from streaming.monitor.store.state import Batch
from streaming.records import InputRecord

ROLE_OF = {"decisions": CHAMPION, "shadow": CHALLENGER}


class Intake:
    """Reads records.

    Parameters
    ----------
    topics : mapping of str to str
        Stream (``transactions``, ``decisions``, ``shadow``, ``labels``) to the name of its topic.
    """

    def __init__(self, topics: Mapping[str, str]) -> None:
        self._streams = {topic: stream for stream, topic in topics.items()}
        self._input = topics["transactions"]

    def read(self, records: Iterable[InputRecord]) -> Batch:
        """Return a batch of records; what cannot be read is counted, and its offset noted all the same."""
        batch = Batch()
        now_ms = int(time.time() * 1000)
        for record in records:
            stream = self._streams[record.topic]
            if stream == "transactions":
                self._read_payment(record, batch, now_ms)
            elif stream == "labels":
                self._read_label(record, batch, now_ms)
            else:
                self._read_decision(record, stream, batch)
            batch.next_offsets[stream, record.partition] = record.offset + 1
        return batch

    @staticmethod
    def _read_payment(record: InputRecord, batch: Batch, now_ms: int) -> None:
        payment = read_payment(record, now_ms)
        if payment is None:
            batch.fates["transactions", "unreadable"] += 1
        else:
            batch.payments.append(payment)

    def _read_decision(self, record: InputRecord, stream: str, batch: Batch) -> None:
        made = read_decision(record, ROLE_OF[stream], self._input)
        if isinstance(made, str):
            batch.fates[stream, made] += 1
        else:
            batch.decisions.append(made)

    @staticmethod
    def _read_label(record: InputRecord, batch: Batch, now_ms: int) -> None:
        label = read_label(record.key, record.value, record.timestamp_ms)
        if not isinstance(label, Label):
            batch.fates["labels", "unreadable"] += 1
            return
        batch.labels.append(
            Given(
                hash_identity(label.transaction_id.encode("utf-8", "surrogatepass")),
                label.labelled_at_ms,
                ORIGINS.index(label.origin),
                0 if label.is_fraud is None else 1 + label.is_fraud,
                clamp_time(record.timestamp_ms, now_ms),
            )
        )
