"""The parts of the circle, each a public command with its own log."""

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from demo.brokers import Broker, open_broker
from demo.errors import DemoError
from demo.loop.plan import Plan
from demo.pipeline import BIN, EMBEDDED, READY_TIMEOUT_S, ROOT, answers
from demo.ports import HOST, choose_port
from demo.processes import Process
from demo.stream import Topics

#: The gate's answer, by its exit status.
REFUSED = 3


@dataclass(frozen=True)
class LoopTopics:
    """Every topic of one run."""

    stream: Topics
    labels: str
    labels_dead_letters: str
    shadow: Topics

    @classmethod
    def of(cls, name: str) -> "LoopTopics":
        """Name the topics after the run."""

        def topic(part: str) -> str:
            return f"loop-{name}.{part}"

        return cls(
            Topics(topic("transactions"), topic("decisions"), topic("dead-letter")),
            topic("labels"),
            topic("labels-dead-letter"),
            Topics(topic("transactions"), topic("decisions-shadow"), topic("shadow-dead-letter")),
        )

    def variables(self) -> dict[str, str]:
        """Return the variables that every streaming command shares."""
        return {
            "STREAMING__TOPICS__INPUT": self.stream.transactions,
            "STREAMING__TOPICS__OUTPUT": self.stream.decisions,
            "STREAMING__TOPICS__DEAD_LETTER": self.stream.dead_letters,
            "STREAMING__TOPICS__LABELS": self.labels,
            "STREAMING__TOPICS__LABELS_DEAD_LETTER": self.labels_dead_letters,
            "STREAMING__TOPICS__SHADOW_DECISIONS": self.shadow.decisions,
        }


@dataclass(frozen=True)
class Started:
    """A part that was started, where it answers, and how to wait until it does."""

    url: str
    process: Process
    probe: str

    def wait(self) -> None:
        """Wait until it is ready.

        Raises
        ------
        DemoError
            If it ends, or is not ready in time.
        """
        self.process.wait_ready(lambda: answers(f"{self.url}{self.probe}"), READY_TIMEOUT_S)


class Parts:
    """Starts the parts; whatever it started ends with its ``ExitStack``.

    Parameters
    ----------
    plan : Plan
    folder : pathlib.Path
        Registry, model store, data, logs and the broker's data of this run.
    stack : contextlib.ExitStack
        Owner of everything started.
    """

    def __init__(self, plan: Plan, folder: Path, stack: ExitStack) -> None:
        self.plan, self.folder = plan, folder
        self.topics = LoopTopics.of(folder.name)
        self._stack = stack
        self._ports: set[int] = set()
        self._env: dict[str, str] = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            **self.topics.variables(),
            **plan.training,
            **plan.streaming,
        }
        self._bridge_env: Mapping[str, str] = {}
        self.shadow_port = self._port(3010)

    def train(self, data: Path, log: str, *arguments: str) -> Process:
        """Start a training; the caller waits for it."""
        command = self._module("training", "train", "--data", str(data), *arguments)
        return self._begin(f"Training ({log})", command, log, self.plan.training)

    def promote_challenger(self, live: str | None, log: str) -> Process:
        """Ask the gate for the challenger; the process ends with 0, or with 3 where the gate refuses."""
        arguments = ["--live", live] if live else []
        command = self._module("training", "promote", "challenger", *arguments)
        return self._begin("The promotion", command, log, self.plan.training)

    def run(self, name: str, package: str, *arguments: str) -> None:
        """Run a command to its end.

        Raises
        ------
        DemoError
            If it fails.
        """
        self.begin(name, package, *arguments).wait_done()

    def begin(self, name: str, package: str, *arguments: str) -> Process:
        """Start a command that ends by itself."""
        return self._begin(name, self._module(package, *arguments), f"{package}-{arguments[0]}")

    def start_broker(self) -> Broker:
        """Start a broker, or take the one given."""
        broker = self._stack.enter_context(open_broker(self.folder / "broker"))
        self._env["KAFKA_BOOTSTRAP_SERVERS"] = broker.address
        self._bridge_env = {} if broker.is_genuine else EMBEDDED
        return broker

    def start_service(self) -> Started:
        """Serve the active release."""
        return self._service("service", self._port(3000), {})

    def start_challenger(self) -> Started:
        """Serve the challenger."""
        return self._service("service-shadow", self.shadow_port, {"SERVING__RELEASE": "challenger"})

    def _service(self, log: str, port: int, env: Mapping[str, str]) -> Started:
        command = [str(BIN / "bentoml"), "serve", "--host", HOST, "--port", str(port)]
        return Started(f"http://{HOST}:{port}", self._begin(f"The {log}", command, log, env), "/readyz")

    def start_bridge(self, service: str, topics: Topics, log: str) -> Started:
        """Start a bridge to a service; it waits for the service by itself."""
        port = self._port(9464)
        command = self._module(
            *("streaming", "bridge", "--classify-url", f"{service}/classify"),
            *("--output-topic", topics.decisions, "--dead-letter-topic", topics.dead_letters),
            *("--group", self.group(log), "--metrics-port", str(port)),
        )
        process = self._begin(f"The {log}", command, log, self._bridge_env)
        return Started(f"http://{HOST}:{port}", process, "/readyz")

    def group(self, log: str) -> str:
        """Return the consumer group of a bridge."""
        return f"{self.topics.stream.transactions}-{log}"

    def start_monitor(self, service: str) -> Started:
        """Start the monitor."""
        port = self._port(9465)
        env = {
            "STREAMING__MONITOR__INFO_URL": f"{service}/info",
            "STREAMING__MONITOR__SHADOW_INFO_URL": f"http://{HOST}:{self.shadow_port}/info",
        }
        command = self._module(
            *("streaming", "monitor", "--state", str(self.folder / "monitor"), "--port", str(port))
        )
        process = self._begin("The monitor", command, "monitor", env)
        return Started(f"http://{HOST}:{port}", process, "/livez")

    def start_replay(self, data: Path) -> Process:
        """Start streaming the transactions."""
        command = self._module("streaming", "replay", "--data", str(data), "--rate", str(self.plan.rate))
        return self._begin("The replay", command, "replay")

    def start_labels(self, data: Path) -> Process:
        """Start sending the labels, at the rate of the transactions."""
        command = self._module("streaming", "label", "--data", str(data), "--rate", str(self.plan.rate))
        return self._begin("The labels", command, "label")

    def export(self, output: Path) -> None:
        """Write what is labelled by now."""
        self.run("The export", "streaming", "export", "--output", str(output))

    def _begin(
        self, name: str, command: list[str], log: str, env: Mapping[str, str] | None = None
    ) -> Process:
        variables = {**self._env, **(env or {})}
        return self._stack.enter_context(Process(name, command, self.folder / f"{log}.log", variables, ROOT))

    @staticmethod
    def _module(package: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", package, *arguments]

    def _port(self, preferred: int) -> int:
        port = choose_port(preferred, self._ports)
        self._ports.add(port)
        return port


def wait_status(process: Process) -> int:
    """Wait for the end of a command whose status says something; return it.

    Raises
    ------
    DemoError
        If it neither passed nor was refused.
    """
    try:
        process.wait_done()
    except DemoError:
        if process.poll() != REFUSED:
            raise
    return process.poll() or 0
