"""Reads what the stream holds, as any consumer of the decisions would."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from demo.errors import DemoError
from demo.ledger import Ledger

POLL_TIMEOUT_MS = 100
TOPICS_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Topics:
    """The three topics of one run."""

    transactions: str
    decisions: str
    dead_letters: str

    def all(self) -> tuple[str, str, str]:
        """Return the three names."""
        return (self.transactions, self.decisions, self.dead_letters)


class StreamReader:
    """Reads the three topics from their first record into a ledger.

    Parameters
    ----------
    address : str
        Bootstrap address of the broker.
    topics : Topics
        Must exist soon: the bridge creates them when it starts.
    ledger : Ledger
        Where every record is booked; may be replaced to keep accounts apart.
    """

    def __init__(self, address: str, topics: Topics, ledger: Ledger) -> None:
        self._topics = topics
        self.ledger = ledger
        self._consumer: Any = KafkaConsumer(
            bootstrap_servers=address,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_poll_records=5000,
        )
        self._consumer.assign(self._partitions())

    def read(self) -> int:
        """Book what has come since the last call, waiting a moment for it; return the number of records."""
        batches = self._consumer.poll(timeout_ms=POLL_TIMEOUT_MS)
        now_ms = time.time() * 1000
        for partition, records in batches.items():
            self._book(partition, records, now_ms)
        return sum(len(records) for records in batches.values())

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _book(self, partition: TopicPartition, records: Iterable[Any], now_ms: float) -> None:
        for record in records:
            if partition.topic == self._topics.transactions:
                self.ledger.book_input((partition.partition, record.offset), record.timestamp)
            elif partition.topic == self._topics.decisions:
                self.ledger.book_decision(record.value, now_ms)
            else:
                headers = {name: value.decode() for name, value in record.headers}
                place = (int(headers["error.partition"]), int(headers["error.offset"]))
                self.ledger.book_dead_letter(place, headers["error.reason"])

    def _partitions(self) -> list[TopicPartition]:
        return [
            TopicPartition(topic, number) for topic in self._topics.all() for number in self._numbers(topic)
        ]

    def _numbers(self, topic: str) -> list[int]:
        deadline = time.monotonic() + TOPICS_TIMEOUT_S
        while not (numbers := self._consumer.partitions_for_topic(topic)):
            if time.monotonic() > deadline:
                raise DemoError(f"Topic {topic} did not appear on the broker: look at the bridge's log.")
            time.sleep(POLL_TIMEOUT_MS / 1000)
        return sorted(numbers)
