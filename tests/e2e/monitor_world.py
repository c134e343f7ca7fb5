"""Topics of their own, a monitor process, and what it shows: for the monitor's tests on a broker."""

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from demo.ports import choose_port
from demo.processes import Process
from tests.e2e.faults import wait_until
from tests.monitored_stream import PARTITIONS, Sent

_numbers = itertools.count(1)
_taken_ports: set[int] = set()


class MonitorWorld:
    """A broker's topics with a monitor on them."""

    def __init__(
        self, servers: str, folder: Path, topics: dict[str, str] | None = None, **settings: object
    ) -> None:
        name = f"monitor-{os.getpid()}-{next(_numbers)}"
        self.servers, self.folder = servers, folder
        self.topics = topics or {
            stream: f"{name}.{stream}" for stream in ("transactions", "decisions", "shadow", "labels")
        }
        self.port = choose_port(29_465, _taken_ports)
        _taken_ports.add(self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        env = {
            "STREAMING__TOPICS__INPUT": self.topics["transactions"],
            "STREAMING__TOPICS__OUTPUT": self.topics["decisions"],
            "STREAMING__TOPICS__SHADOW_DECISIONS": self.topics["shadow"],
            "STREAMING__TOPICS__LABELS": self.topics["labels"],
            "STREAMING__TOPICS__PARTITIONS": str(PARTITIONS),
            "STREAMING__MONITOR__REFRESH_S": "0.5",
            "STREAMING__KAFKA__REQUEST_TIMEOUT_S": "3",
            **{f"STREAMING__{key.upper()}": str(value) for key, value in settings.items()},
        }
        command = [
            *(sys.executable, "-m", "streaming", "monitor", "--bootstrap-servers", servers),
            *("--state", str(folder / "state"), "--port", str(self.port)),
        ]
        self.monitor = Process("monitor", command, folder / "monitor.log", env)

    def __enter__(self) -> Self:
        self.create_topics(list(self.topics))
        return self

    def __exit__(self, *_: object) -> None:
        self.monitor.kill()

    def create_topics(self, streams: Sequence[str]) -> None:
        """Create topics, again or for the first time."""
        names = [self.topics[stream] for stream in streams]
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
            admin.wait_for_topics(names)

    def delete_topics(self, streams: Sequence[str]) -> None:
        """Delete topics and wait until they are gone."""
        names = {self.topics[stream] for stream in streams}
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            admin.delete_topics(list(names))
            wait_until(lambda: not names & set(admin.list_topics()), 30, "the topics are still there")

    def existing_topics(self) -> set[str]:
        """Return the names of all topics."""
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            return set(admin.list_topics())

    def send(self, records: Sequence[Sent]) -> None:
        """Send records, each to its partition at its time."""
        producer = KafkaProducer(bootstrap_servers=self.servers, linger_ms=5, delivery_timeout_ms=120_000)
        with contextlib.closing(producer):
            futures = [
                producer.send(
                    self.topics[one.stream],
                    key=one.key,
                    value=one.value,
                    partition=one.partition,
                    timestamp_ms=one.timestamp_ms,
                )
                for one in records
            ]
            for future in futures:
                future.get(60)

    def read_back(self) -> list[Sent]:
        """Read all four topics from their beginning."""
        streams = {topic: stream for stream, topic in self.topics.items()}
        places = [TopicPartition(topic, number) for topic in streams for number in range(PARTITIONS)]
        consumer = KafkaConsumer(
            bootstrap_servers=self.servers,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        found: list[Sent] = []
        with contextlib.closing(consumer):
            consumer.assign(places)
            ends = consumer.end_offsets(places)
            deadline = time.monotonic() + 60
            while any(consumer.position(place) < ends[place] for place in places):
                assert time.monotonic() < deadline, "the topics cannot be read to their ends"
                for records in consumer.poll(500, max_records=5000).values():
                    found += [
                        Sent(streams[r.topic], r.partition, r.timestamp, r.key, r.value, r.offset)
                        for r in records
                    ]
        return found

    def bounds(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Return the first offset of each stream's partition and the one after its last."""
        streams = {topic: stream for stream, topic in self.topics.items()}
        places = [TopicPartition(topic, number) for topic in streams for number in range(PARTITIONS)]
        with contextlib.closing(KafkaConsumer(bootstrap_servers=self.servers)) as consumer:
            first, last = consumer.beginning_offsets(places), consumer.end_offsets(places)
        return {(streams[one.topic], one.partition): (first[one], last[one]) for one in places}

    def delete_records(self, before: dict[tuple[str, int], int]) -> None:
        """Delete the records before an offset of each partition, as retention does."""
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            admin.delete_records(
                {TopicPartition(self.topics[stream], n): offset for (stream, n), offset in before.items()}
            )

    def start(self) -> None:
        """Start the monitor, again or for the first time."""
        self.monitor.start()

    def kill(self) -> None:
        """Kill it with -9."""
        self.monitor.kill()

    def document(self) -> dict[str, Any]:
        """Return what ``/quality.json`` says; empty while nobody answers."""
        try:
            found: dict[str, Any] = httpx.get(f"{self.url}/quality.json", timeout=5).json()
            return found
        except httpx.TransportError:
            return {}

    def readiness(self) -> str:
        """Return what ``/readyz`` says; empty while nobody answers."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).text
        except httpx.TransportError:
            return ""

    def wait_for(self, records: int, timeout_s: float = 60) -> dict[str, Any]:
        """Wait until so many records have been read in all; return what is shown then."""

        def has_read() -> bool:
            found = self.document()
            return self.records_read(found) >= records and not sum(found["lag_records"].values())

        wait_until(has_read, timeout_s, f"the monitor has not read {records} records", every_s=0.2)
        return self.document()

    @staticmethod
    def records_read(document: dict[str, Any]) -> int:
        """Return how many records are counted, whatever became of them."""
        counts = document.get("counts", {"records": {}})["records"]
        return sum(count for fates in counts.values() for count in fates.values())
