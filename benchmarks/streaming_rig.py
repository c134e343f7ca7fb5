"""What the streaming benchmark runs on: broker, service, bridges, replay, and a look at their topics."""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from demo.brokers import open_broker
from demo.ports import HOST, choose_port
from demo.processes import Process

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
    from kafka.admin import NewTopic

ROOT = Path(__file__).parent.parent
PARTITIONS = 4
# Each process is a session of its own here, and with autogroups (sched(7)) Linux shares the cores by session:
# a nice value alone would weigh nothing.
LOWEST_PRIORITY = [
    *("bash", "-c", '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$@"', "lowest-priority")
]
_numbers = itertools.count(1)


@dataclass
class Rig:
    """A running broker and service, and a folder for everything else."""

    servers: str
    broker: str
    broker_pid: int | None
    url: str
    service: str
    service_pid: int | None
    folder: Path
    data: Path
    _taken_ports: set[int] = field(default_factory=set)

    def topic(self) -> str:
        """Make topics of their own for one measurement; return the name they share."""
        name = f"bench-{os.getpid()}-{next(_numbers)}"
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            names = [f"{name}.{part}" for part in ("in", "out", "dead")]
            admin.create_topics([NewTopic(one, PARTITIONS, 1) for one in names])
            admin.wait_for_topics(names)
        return name

    def replay(self, topic: str, limit: int, rate: float, *, wait: bool = True) -> Process:
        """Send transactions to ``topic.in``, flat out with rate 0."""
        command = [sys.executable, "-m", "streaming", "replay", "--bootstrap-servers", self.servers]
        command += ["--topic", f"{topic}.in", "--data", str(self.data), "--loop"]
        command += ["--limit", str(limit), "--rate", str(rate)]
        process = Process("replay", command, self.folder / "replay.log", cwd=ROOT).start()
        if wait:
            process.wait_done()
        return process

    def bridge(
        self, topic: str, name: str = "a", reasons: str = "none", output: str | None = None
    ) -> "Bridge":
        """Make a bridge from ``topic.in`` to ``output.out``, by default ``topic.out``, not started."""
        env = {"STREAMING__SERVICE__REASONS": reasons}
        return self._bridge(self.url, topic, name, output or topic, [], env)

    def other_bridge(self, folder: Path, topic: str) -> "Bridge":
        """Make a bridge of another version, which `folder` holds with an environment of its own."""
        return self._bridge(self.url, topic, "other", topic, [], {}, folder)

    def shadow_bridge(self, url: str, topic: str, shadow: str) -> "Bridge":
        """Make a bridge from ``topic.in`` to ``shadow.out`` in a group of its own, at the lowest priority."""
        return self._bridge(url, topic, "shadow", shadow, LOWEST_PRIORITY, {})

    def _bridge(
        self,
        url: str,
        topic: str,
        name: str,
        output: str,
        prefix: list[str],
        env: dict[str, str],
        folder: Path = ROOT,
    ) -> "Bridge":
        port = choose_port(19464, self._taken_ports)
        self._taken_ports.add(port)
        python = sys.executable if folder == ROOT else str(folder / ".venv" / "bin" / "python")
        command = [*prefix, python, "-m", "streaming", "bridge", "--bootstrap-servers", self.servers]
        command += ["--classify-url", url, "--input-topic", f"{topic}.in", "--output-topic", f"{output}.out"]
        command += ["--dead-letter-topic", f"{output}.dead", "--group", output, "--instance-id", name]
        command += ["--metrics-port", str(port)]
        return Bridge(
            Process(f"bridge {name}", command, self.folder / f"{topic}-{name}.log", env, folder), port
        )

    @contextlib.contextmanager
    def shadow_service(self) -> Iterator[str]:
        """Serve the release a second time at the lowest priority; yield its address."""
        with _serve(self.folder, choose_port(13_100), "shadow-service", LOWEST_PRIORITY) as (url, _):
            yield url


@dataclass
class Bridge:
    """A bridge as a process, and its metrics."""

    process: Process
    port: int
    memory_mb: list[float] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """Return every sample by name and labels."""
        text = httpx.get(f"http://{HOST}:{self.port}/metrics", timeout=5).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def decided(self) -> float:
        """Return the records decided so far; 0 before it answers."""
        with contextlib.suppress(httpx.TransportError):
            found = self.metrics()
            return sum(
                value for name, value in found.items() if name.startswith("bridge_records_decided_total")
            )
        return 0.0

    def stages(self) -> dict[str, float]:
        """Return stage to the seconds spent in it."""
        pattern = re.compile(r'bridge_stage_seconds_total\{stage="(\w+)"\}')
        return {m[1]: value for name, value in self.metrics().items() if (m := pattern.fullmatch(name))}


@contextlib.contextmanager
def open_rig(folder: Path, url: str | None) -> Iterator[Rig]:
    """Start what is not given: broker as the demo does, service with a small release of its own."""
    data = folder / "transactions.csv"
    _run("training", "simulate", "--rows", "50000", "--seed", "11", "--output", str(data))
    with open_broker(folder / "broker") as broker, _service(folder, url) as (address, name, pid):
        broker_pid = _listener_pid(int(broker.address.rsplit(":", 1)[1]))
        yield Rig(broker.address, broker.description, broker_pid, address, name, pid, folder, data)


@contextlib.contextmanager
def _service(folder: Path, url: str | None) -> Iterator[tuple[str, str, int | None]]:
    if url is not None:
        port = httpx.URL(url).port
        yield url, f"the service at {url}", _listener_pid(port) if port else None
        return
    rows = folder / "training.parquet"
    _run("training", "simulate", "--rows", "20000", "--seed", "7", "--output", str(rows))
    _run("training", "train", "--data", str(rows), "--epochs", "4", "--force", **_home(folder))
    with _serve(folder, choose_port(13_000), "service", []) as (address, pid):
        yield address, "bentoml serve", pid


def _home(folder: Path) -> dict[str, str]:
    return {
        "BENTOML_HOME": str(folder / "bentoml"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "BENTOML_DO_NOT_TRACK": "True",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


@contextlib.contextmanager
def _serve(folder: Path, port: int, log: str, prefix: list[str]) -> Iterator[tuple[str, int]]:
    program = str(Path(sys.executable).parent / "bentoml")
    command = [*prefix, program, "serve", "--host", HOST, "--port", str(port)]
    with Process(f"the {log}", command, folder / f"{log}.log", _home(folder), ROOT) as process:
        process.wait_ready(lambda: _is_ready(f"http://{HOST}:{port}/readyz"), 120)
        yield f"http://{HOST}:{port}/classify", process.pid


def _run(package: str, *arguments: str, **variables: str) -> None:
    command = [sys.executable, "-m", package, *arguments]
    done = subprocess.run(
        command, env={**os.environ, **variables}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{package} {arguments[0]} failed: {done.stderr.strip()[-500:]}")


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=2).status_code == 200
    return False


def _listener_pid(port: int) -> int | None:
    with contextlib.suppress(psutil.AccessDenied):
        for found in psutil.net_connections("tcp"):
            if found.status == "LISTEN" and found.laddr.port == port:
                return found.pid
    return None


class Reader:
    """Reads decisions on a thread, `read_committed`, and notes when each could be read."""

    def __init__(self, servers: str, topic: str) -> None:
        self.arrivals: dict[tuple[int, int], float] = {}
        self._servers, self._topic = servers, topic
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(consumer(self._servers)) as source:
            source.assign([TopicPartition(self._topic, number) for number in range(PARTITIONS)])
            while not self._stopped.is_set():
                polled = source.poll(timeout_ms=100)
                now = time.time()
                for record in itertools.chain.from_iterable(polled.values()):
                    self.arrivals[source_of(record.value)] = now


def source_of(value: bytes) -> tuple[int, int]:
    """Return partition and offset of the transaction that a decision belongs to, without a JSON parser."""
    found = re.search(rb'"partition":(\d+),"offset":(\d+)\}', value)
    assert found is not None
    return int(found[1]), int(found[2])


def consumer(servers: str) -> Any:  # noqa: ANN401  # kafka-python is untyped
    """Return a `read_committed` consumer without a group."""
    return KafkaConsumer(
        bootstrap_servers=servers,
        group_id=None,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=2000,
        metrics_enabled=False,
    )


def read_all(servers: str, topic: str) -> Iterator[Any]:
    """Yield every record of a topic up to its present end."""
    with contextlib.closing(consumer(servers)) as source:
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        source.assign(places)
        ends = source.end_offsets(places)
        while any(source.position(place) < ends[place] for place in places):
            yield from itertools.chain.from_iterable(source.poll(timeout_ms=500).values())


def decided_per_second(servers: str, topic: str) -> tuple[int, float]:
    """Return the decisions on ``topic.out`` and how many were made per second, by their own times."""
    times = sorted(json.loads(record.value)["decided_at_ms"] for record in read_all(servers, f"{topic}.out"))
    return len(times), len(times) / max(0.001, (times[-1] - times[0]) / 1000)


def cpu_seconds(pid: int | None) -> float:
    """Return the processor time of a process and its children."""
    if pid is None:
        return 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return sum(sum(one.cpu_times()[:2]) for one in [root, *root.children(recursive=True)])
    return 0.0


def wait_until(is_true: Callable[[], bool], timeout_s: float) -> None:
    """Poll until something holds, or stop the benchmark."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise SystemExit(f"the benchmark waited {timeout_s:.0f} s in vain")
        time.sleep(0.1)
