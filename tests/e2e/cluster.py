"""Three genuine Kafka nodes on the loopback address; a test may kill and freeze each of them."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from demo.brokers import LOG_PROPERTIES, READY_TIMEOUT_S
from demo.ports import HOST, accepts_connections, choose_port
from demo.processes import Process

NODES = 3
# Every node is broker and controller, so that a kill also costs the quorum a member, perhaps its leader.
COMBINED = "broker,controller"
PROPERTIES = """\
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
default.replication.factor=3
min.insync.replicas=2
num.partitions=6
auto.create.topics.enable=true
offsets.topic.replication.factor=3
offsets.topic.num.partitions=6
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=6
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=5000
log.cleaner.dedupe.buffer.size=16777216
"""


class Node:
    """One process of the cluster.

    Parameters
    ----------
    home, directory : pathlib.Path
        The Kafka distribution, and where the node writes.
    number, port, controller_port : int
    roles : str
        ``process.roles``.
    """

    def __init__(
        self, home: Path, directory: Path, number: int, port: int, controller_port: int, roles: str
    ) -> None:
        self._home, self._directory, self._port, self._roles = home, directory, port, roles
        self.number, self.controller_port = number, controller_port
        command = [
            *("java", "-Xms160m", "-Xmx320m", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1"),
            *("-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={directory}/log4j2.properties"),
            *("-cp", f"{home}/libs/*", "kafka.Kafka", f"{directory}/server.properties"),
        ]
        self.process = Process(f"Kafka node {number}", command, directory / "server.log")

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return f"{HOST}:{self._port}"

    def format(self, cluster_id: str, properties: Mapping[str, str], text: str) -> None:
        """Write the node's settings and prepare its folder."""
        self._directory.mkdir(parents=True)
        named = {
            "broker": f"PLAINTEXT://{self.address}",
            "controller": f"CONTROLLER://{HOST}:{self.controller_port}",
        }
        listeners = ",".join(named[role] for role in self._roles.split(","))
        own = {
            "process.roles": self._roles,
            "node.id": str(self.number),
            "listeners": listeners,
            "advertised.listeners": listeners,
            "log.dirs": str(self._directory / "data"),
            **properties,
        }
        settings = self._directory / "server.properties"
        settings.write_text(text + "".join(f"{key}={value}\n" for key, value in own.items()))
        (self._directory / "log4j2.properties").write_text(LOG_PROPERTIES)
        _storage_tool(self._home, "format", "-t", cluster_id, "-c", str(settings))

    def start(self) -> None:
        """Start it without waiting."""
        self.process.log.unlink(missing_ok=True)
        self.process.start()

    def wait_ready(self) -> None:
        """Wait until it takes part."""
        self.process.wait_ready(self._is_ready, READY_TIMEOUT_S)

    def _is_ready(self) -> bool:
        port = self._port if "broker" in self._roles else self.controller_port
        return b"Kafka Server started" in self.process.log.read_bytes() and accepts_connections(port)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()

    def freeze(self) -> None:
        """Stop it without closing its connections."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)


class Cluster:
    """Three nodes; every topic has three copies, of which two must have a record.

    Parameters
    ----------
    home, directory : pathlib.Path
    own_controller : bool
        Whether a fourth node is the controller, as Kafka advises for production: the three are brokers alone.
    **properties : str
        Settings of the brokers, ``_`` for ``.``; ``broker.session.timeout.ms`` is 3000 by default (Kafka's
        own default is 9000): so long a killed broker's partitions have no leader, whatever a client does.
    """

    def __init__(
        self, home: Path, directory: Path, *, own_controller: bool = False, **properties: str
    ) -> None:
        all_roles = [*("broker",) * NODES, "controller"] if own_controller else [COMBINED] * NODES
        taken: set[int] = set()
        for _ in range(2 * len(all_roles)):
            taken.add(choose_port(0, taken | {0}))
        ports = zip(*[iter(sorted(taken))] * 2, strict=True)
        made = [
            Node(home, directory / str(number), number, *pair, roles)
            for number, (roles, pair) in enumerate(zip(all_roles, ports, strict=True), 1)
        ]
        self.nodes = made[:NODES]
        self.controllers = made[NODES:] or made
        self._all = made
        voters = ",".join(f"{node.number}@{HOST}:{node.controller_port}" for node in self.controllers)
        cluster_id = _storage_tool(home, "random-uuid").strip().splitlines()[-1]
        settings = {
            "broker.session.timeout.ms": "3000",
            **{key.replace("_", "."): value for key, value in properties.items()},
        }
        for node in made:
            node.format(cluster_id, settings, PROPERTIES.format(voters=voters))

    @property
    def servers(self) -> str:
        """Addresses of all nodes."""
        return ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        """Start all nodes and wait until they are ready."""
        for node in self._all:
            node.start()
        for node in self._all:
            node.wait_ready()

    def describe(self, topic: str | None = None) -> list[Any]:
        """Return the partitions of a topic, or of all: their leaders and the nodes in step."""
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            found = admin.describe_topics(None if topic is None else [topic])
        return [partition for one in found for partition in one["partitions"]]

    def is_in_step(self) -> bool:
        """Return whether every partition has all its copies in step; False also without an answer."""
        with contextlib.suppress(KafkaError, OSError):
            return all(len(one["isr_nodes"]) == len(one["replica_nodes"]) for one in self.describe())
        return False

    def repair(self) -> None:
        """Start what does not run, and wait until it takes part."""
        gone = [node for node in self.nodes if node.process.poll() is not None]
        for node in gone:
            node.start()
        for node in gone:
            node.wait_ready()

    def close(self) -> None:
        """End all nodes."""
        for node in self._all:
            with contextlib.suppress(ProcessLookupError, AssertionError):  # ended, or never started
                node.thaw()
                node.kill()


@contextlib.contextmanager
def open_cluster(directory: Path, *, own_controller: bool = False, **properties: str) -> Iterator[Cluster]:
    """Give a running cluster from ``KAFKA_HOME``; it ends with the block."""
    home = Path(os.environ["KAFKA_HOME"])
    cluster = Cluster(home, directory, own_controller=own_controller, **properties)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def _storage_tool(home: Path, *arguments: str) -> str:
    tool = ["java", "-Xmx128m", "-cp", f"{home}/libs/*", "kafka.tools.StorageTool", *arguments]
    return subprocess.run(tool, capture_output=True, text=True, check=True).stdout
