"""The steps of the demo, each a public command, started in order and stopped in reverse."""

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.brokers import Broker, open_broker
from demo.errors import DemoError
from demo.ports import HOST, choose_port
from demo.processes import Process
from demo.screen import Screen
from demo.stream import Topics

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
READY_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes
    ----------
    data : str
        A file of transactions; empty: what ``training`` finds by itself.
    fresh : bool
        Train and promote again although nothing changed.
    keep : bool
        Keep serving after the summary until Ctrl-C.
    rate : int
        Transactions per second of the replay.
    limit : int
        Transactions to replay at most.
    """

    data: str
    fresh: bool
    keep: bool
    rate: int = 1000
    limit: int = 20_000

    @classmethod
    def from_environment(cls) -> "Options":
        """Read ``DATA``, ``FRESH`` and ``KEEP``; a terminal keeps serving unless told otherwise."""
        keep = os.environ.get("KEEP", "")
        return cls(
            data=os.environ.get("DATA", ""),
            fresh=os.environ.get("FRESH", "") == "1",
            keep=keep == "1" if keep else sys.stdin.isatty() and sys.stdout.isatty(),
        )


@dataclass(frozen=True)
class Links:
    """Where the running parts can be looked at."""

    service: str
    bridge_metrics: str
    mlflow: str | None


class Pipeline:
    """Starts the parts one by one; whatever it started ends with its ``ExitStack``.

    Parameters
    ----------
    folder : pathlib.Path
        Working folder of this run: logs and the broker's data.
    stack : contextlib.ExitStack
        Owner of everything started.
    screen : Screen
        Shows the steps.
    """

    def __init__(self, options: Options, folder: Path, stack: ExitStack, screen: Screen) -> None:
        self.options = options
        self.held_out = folder.parent / "held_out.parquet"
        self._folder = folder
        self._stack = stack
        self._screen = screen
        self._ports: set[int] = set()

    def train(self) -> None:
        """Fit, track, register, promote and import both models, unless the release stands already."""
        arguments = ["train", "--protocol", "temporal", "--held-out", str(self.held_out)]
        arguments += ["--data", self.options.data] if self.options.data else []
        arguments += ["--force"] if self.options.fresh else ["--if-changed"]
        with self._screen.step("Train both models, track, register, promote, import") as step:
            with self.training("training", *arguments) as child:
                child.wait_done(on_poll=lambda: step.say(child.last_line()))
            step.done(child.last_line())

    def start_broker(self) -> Broker:
        """Start a broker, or take the one given."""
        with self._screen.step("Start a Kafka broker") as step:
            broker = self._stack.enter_context(open_broker(self._folder / "broker"))
            step.done(f"{broker.description} at {broker.address}")
        return broker

    def start_mlflow(self) -> str:
        """Start the comparison UI on the registry that training wrote to; return its URL."""
        if (uri := os.environ.get("MLFLOW_TRACKING_URI", "")).startswith("http"):
            return uri
        port = self._port(5000)
        url = f"http://{HOST}:{port}"
        command = [str(BIN / "mlflow"), "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
        # The UI looks into the current folder whatever the variable says.
        command += ["--backend-store-uri", uri] if uri else []
        with self._screen.step("Start the MLflow UI") as step:
            self._serve("The MLflow UI", command, "mlflow", f"{url}/health")
            step.done(f"{url}/#/models")
        return url

    def start_service(self) -> str:
        """Serve the bento; return its base URL."""
        port = self._port(3000)
        url = f"http://{HOST}:{port}"
        command = [str(BIN / "bentoml"), "serve", "--host", HOST, "--port", str(port)]
        with self._screen.step("Serve the bento") as step:
            self._serve("The service", command, "service", f"{url}/readyz")
            step.done(url)
        return url

    def start_bridge(self, broker: Broker, service: str, topics: Topics) -> str:
        """Start the bridge between the broker and the service; return its metrics URL."""
        port = self._port(9464)
        url = f"http://{HOST}:{port}"
        command = [
            *(sys.executable, "-m", "streaming", "bridge"),
            *("--bootstrap-servers", broker.address, "--classify-url", f"{service}/classify"),
            *("--input-topic", topics.transactions, "--output-topic", topics.decisions),
            *("--dead-letter-topic", topics.dead_letters),
            *("--group", f"{topics.transactions}-bridge", "--metrics-port", str(port)),
        ]
        with self._screen.step("Start the bridge") as step:
            self._serve(
                "The bridge", command, "bridge", f"{url}/readyz", EMBEDDED if not broker.is_genuine else {}
            )
            step.done(f"{topics.transactions} -> {service}/classify -> {topics.decisions}")
        return f"{url}/metrics"

    def start_replay(self, broker: Broker, topics: Topics, *, endless: bool = False) -> Process:
        """Start streaming the held-out transactions, again and again if `endless`; return the process."""
        command = [
            *(sys.executable, "-m", "streaming", "replay"),
            *("--bootstrap-servers", broker.address, "--topic", topics.transactions),
            *("--data", str(self.held_out)),
            *("--rate", str(self.options.rate)),
        ]
        command += ["--loop"] if endless else ["--limit", str(self.options.limit)]
        return self._stack.enter_context(self._process("The replay", command, "replay"))

    def training(self, log: str, *arguments: str, env: dict[str, str] | None = None) -> Process:
        """Return a command of training, to be entered."""
        return self._process("Training", [sys.executable, "-m", "training", *arguments], log, env)

    def _serve(
        self, name: str, command: list[str], log: str, ready_url: str, env: dict[str, str] | None = None
    ) -> None:
        process = self._stack.enter_context(self._process(name, command, log, env))
        process.wait_ready(lambda: answers(ready_url), READY_TIMEOUT_S)

    def _process(self, name: str, command: list[str], log: str, env: dict[str, str] | None = None) -> Process:
        # bentoml calls tools of the environment by name.
        path = {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
        return Process(name, command, self._folder / f"{log}.log", {**path, **(env or {})}, ROOT)

    def _port(self, preferred: int) -> int:
        port = choose_port(preferred, self._ports)
        self._ports.add(port)
        return port


#: The embedded broker wants short sessions: it notices a member that left only by the timeout.
EMBEDDED = {
    "STREAMING__BRIDGE__SESSION_TIMEOUT_MS": "6000",
    "STREAMING__BRIDGE__REVOKE_TIMEOUT_S": "2",
}


def answers(url: str) -> bool:
    """Say whether `url` answers 200."""
    try:
        # Started here, on this machine: a proxy for the internet cannot reach it.
        return httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def require_data(options: Options) -> None:
    """Refuse a data file that is not there before anything is started.

    Raises
    ------
    DemoError
        If ``DATA`` names no file.
    """
    if options.data and not Path(options.data).is_file():
        raise DemoError(f"DATA={options.data} is not a file: give a CSV or parquet file, or leave DATA out.")
