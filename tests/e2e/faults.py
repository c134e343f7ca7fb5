"""A small world to break: a broker, a scripted service, bridges under load, and what came of it all."""

import contextlib
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import NewTopic

from demo.ports import accepts_connections, choose_port
from demo.processes import Process
from streaming.broker.compat.kafka_internals import list_offsets
from tests.e2e.bad_records import all_kinds
from tests.e2e.verifier import Report, Seen, verify
from tests.scripted_service import FEATURES

PARTITIONS = 4
SESSION_MS = 6000
_worlds = itertools.count(1)

Answer = TypeVar("Answer")


def transactions(seed: int) -> Iterator[bytes]:
    """Yield sound transactions without end, each with an id of its own."""
    rng = random.Random(seed)
    rows = [",".join(f'"{name}":{round(rng.uniform(0, 900), 3)}' for name in FEATURES) for _ in range(500)]
    for number in itertools.count():
        yield b'{"transaction_id":"T-%d-%d",%b}' % (seed, number, rows[number % len(rows)].encode())


class Feeder:
    """Sends transactions at a rate from a thread, some of them bad, until stopped."""

    def __init__(self, servers: str, topic: str, rate: float, bad_share: float = 0.02) -> None:
        self._servers, self._topic, self._rate, self._bad_share = servers, topic, rate, bad_share
        self._stopped = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the feeder is stuck"

    def _run(self) -> None:
        producer = _producer(self._servers)
        rng = random.Random(self._rate)
        sound, kinds = transactions(rng.randrange(10**6)), itertools.cycle(all_kinds())
        begun = time.monotonic()
        while not self._stopped.wait(0.01):
            due = min(int((time.monotonic() - begun) * self._rate) - self.sent, 2000)
            for _ in range(due):
                key, value = _next_record(rng, sound, kinds, self._bad_share)
                producer.send(self._topic, key=key, value=value)
            self.sent += max(0, due)
        producer.flush(100)
        producer.close(timeout=5)


def _next_record(
    rng: random.Random, sound: Any, kinds: Any, bad_share: float
) -> tuple[bytes | None, bytes | None]:
    if rng.random() < bad_share:
        key, value = next(kinds)
        return (key, value) if key is not None or value is not None else (b"k", None)
    return (f"card-{rng.randrange(60)}".encode() if rng.random() < 0.9 else None), next(sound)


def _producer(servers: str) -> Any:
    return KafkaProducer(
        bootstrap_servers=servers,
        delivery_timeout_ms=600_000,
        reconnect_backoff_max_ms=1000,
        linger_ms=2,
        metrics_enabled=False,
    )


class World:
    """Fresh topics on a broker, a scripted service, and bridges by instance id."""

    def __init__(
        self,
        servers: str,
        folder: Path,
        partitions: int = PARTITIONS,
        copies: int = 1,
        configs: Mapping[str, str] | None = None,
    ) -> None:
        self.partitions, self._copies, self._configs = partitions, copies, dict(configs or {})
        name = f"faults-{os.getpid()}-{next(_worlds)}"
        self.servers, self.folder, self.group = servers, folder, name
        self.input, self.output, self.letters = f"{name}.in", f"{name}.out", f"{name}.dead"
        self.bridges: dict[str, Process] = {}
        self.kills = 0
        # Free for seconds while the service is dead: another run of these tests must not take it then.
        self._service_port = choose_port(13_000 + os.getpid() % 1000)
        command = [sys.executable, "-m", "tests.scripted_service", str(self._service_port)]
        self.service = Process("scripted service", command, folder / "service.log")

    def __enter__(self) -> Self:
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            names = (self.input, self.output, self.letters)
            topics = [
                NewTopic(name, self.partitions, self._copies, topic_configs=self._configs) for name in names
            ]
            admin.create_topics(topics)
            admin.wait_for_topics(list(names))
        self.start_service()
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.bridges.values(), self.service]:
            with contextlib.suppress(ProcessLookupError, AssertionError):
                os.killpg(process.pid, signal.SIGCONT)
            process.kill()

    def start_service(self) -> None:
        self.service.start()
        self.service.wait_ready(lambda: accepts_connections(self._service_port), 30)

    def script(self, mode: str, value: Any = None) -> None:
        """Tell the service how to behave."""
        self._order({"mode": mode, "value": value})

    def requests(self) -> int:
        """Return how many requests the service has had."""
        return int(self._order({})["requests"])

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        answer = httpx.post(f"http://127.0.0.1:{self._service_port}/script", json=order, timeout=10)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    @property
    def classify_url(self) -> str:
        """Address of the scripted service."""
        return f"http://127.0.0.1:{self._service_port}/classify"

    def start_bridge(self, name: str, servers: str | None = None, **settings: object) -> Process:
        """Start a bridge under an instance id, again or for the first time; `servers`: what it is told of."""
        env = {
            "STREAMING__BRIDGE__SESSION_TIMEOUT_MS": str(SESSION_MS),
            "STREAMING__BRIDGE__REVOKE_TIMEOUT_S": "2",
            "STREAMING__SERVICE__REQUEST_TIMEOUT_S": "2",
            "STREAMING__SERVICE__BACKOFF_MAX_S": "0.5",
            "STREAMING__SERVICE__CLASSIFY_URL": self.classify_url,
            "STREAMING__METRICS__PORT": "0",
            **{f"STREAMING__{key}": str(value) for key, value in settings.items()},
        }
        command = [
            *(sys.executable, "-m", "streaming", "bridge", "--bootstrap-servers", servers or self.servers),
            *(
                "--input-topic",
                self.input,
                "--output-topic",
                self.output,
                "--dead-letter-topic",
                self.letters,
            ),
            *("--group", self.group, "--instance-id", name),
        ]
        bridge = Process(f"bridge {name}", command, self.folder / f"{name}.log", env)
        self.bridges[name] = bridge
        return bridge.start()

    def kill_bridge(self, name: str) -> None:
        self.bridges[name].kill()
        self.kills += 1

    def feed(self, rate: float, bad_share: float = 0.02) -> Feeder:
        return Feeder(self.servers, self.input, rate, bad_share)

    def committed(self) -> int:
        """Return how many input records the group has committed."""
        return sum(self._committed().values())

    def _committed(self) -> dict[int, int]:
        def ask() -> dict[int, int]:
            consumer = KafkaConsumer(
                bootstrap_servers=self.servers, group_id=self.group, enable_auto_commit=False
            )
            with contextlib.closing(consumer):
                places = [TopicPartition(self.input, number) for number in range(self.partitions)]
                return {place.partition: consumer.committed(place, timeout_ms=5000) or 0 for place in places}

        return patiently(ask)

    def _ends(self) -> dict[int, int]:
        with contextlib.closing(KafkaConsumer(bootstrap_servers=self.servers)) as consumer:
            places = [TopicPartition(self.input, number) for number in range(self.partitions)]
            ends = list_offsets(consumer.end_offsets, places, 5000)
            return {place.partition: end for place, end in ends.items()}

    def wait_drained(self, timeout_s: float) -> None:
        """Wait until everything that was fed is committed."""

        def is_drained() -> bool:
            with contextlib.suppress(kafka_errors.KafkaError):
                return self._committed() == self._ends()
            return False

        wait_until(is_drained, timeout_s, "the bridges have not decided everything", every_s=0.5)

    def wait_progress(self, records: int, timeout_s: float) -> None:
        """Wait until so many more records are committed."""
        goal = self.committed() + records
        wait_until(lambda: self.committed() >= goal, timeout_s, "the bridges make no progress", every_s=0.3)

    def report(self) -> Report:
        """Read all three topics and judge."""
        seen = [
            read_topic(self.servers, name, self.partitions)
            for name in (self.input, self.output, self.letters)
        ]
        return verify(*seen)


def patiently(question: Callable[[], Answer], timeout_s: float = 30.0) -> Answer:
    """Return an answer of the brokers; one of them may be down, or just about to be."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return question()
        except (kafka_errors.KafkaError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def read_topic(servers: str, topic: str, partitions: int = PARTITIONS) -> list[Seen]:
    """Read a topic from its beginning to its end, read_committed."""
    places = [TopicPartition(topic, number) for number in range(partitions)]
    consumer = KafkaConsumer(
        bootstrap_servers=servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=5000,
    )
    found: list[Seen] = []
    with contextlib.closing(consumer):
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        deadline = time.monotonic() + 120
        while any(consumer.position(place) < ends[place] for place in places):
            assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
            for records in consumer.poll(500).values():
                found += [
                    Seen(r.topic, r.partition, r.offset, r.key, r.value, tuple(r.headers)) for r in records
                ]
    return found


def wait_until(is_true: Callable[[], bool], timeout_s: float, otherwise: str, every_s: float = 0.1) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"{otherwise} within {timeout_s:.0f} s"
        time.sleep(every_s)
