"""A Docker engine and a compose stack on it, as the container tests drive them."""

import copy
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.conftest import BIN, ROOT

BASE_IMAGE = "python:3.11-slim"
# What compose starts without any profile; images of others come last.
OTHERS = ("apache/kafka:4.1.1", "prom/prometheus:v3.5.0")
ALERTMANAGER = "prom/alertmanager:v0.28.1"


class EngineError(AssertionError):
    """A command of the engine failed; its output follows."""


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    timeout_s: float = 900,
) -> str:
    """Return what `command` prints; what it said is shown when it fails."""
    done = subprocess.run(
        list(command),
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise EngineError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{said}")
    return done.stdout


def say(text: str) -> None:
    """Show a figure; `make containers` runs with -s."""
    sys.stdout.write(f"\n{text}\n")


def wait_until(is_true: Callable[[], Any], timeout_s: float, what: str) -> None:
    """Poll until `is_true`, at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Say whether `url` answers 200."""
    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@functools.cache
def find_docker() -> str | None:
    """Return a client that reaches an engine and can build with it: some come without their builder."""
    for client in dict.fromkeys([shutil.which("docker"), "/usr/bin/docker"]):
        if client and Path(client).exists() and _builds(client):
            return client
    return None


def _builds(client: str) -> bool:
    done = subprocess.run(
        [client, "build", "-q", "-"],
        input=b"FROM scratch\nLABEL probe=1\n",
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@functools.cache
def find_compose() -> tuple[str, ...] | None:
    """Return the command of Docker Compose, v2 or v1.29."""
    for command in ((find_docker() or "docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return command
    return None


def find_missing_image() -> str | None:
    """Return an image that is neither here nor can be pulled."""
    return next((image for image in OTHERS if not is_here(image)), None)


@functools.cache
def is_here(image: str) -> bool:
    """Return whether the engine has `image`, or could pull it."""
    return any(
        subprocess.run(
            [find_docker() or "docker", *command.split(), image], capture_output=True, check=False
        ).returncode
        == 0
        for command in ("image inspect", "pull")
    )


def docker(*arguments: str | Path, **options: Any) -> str:
    """Run a command of the client."""
    return run(find_docker() or "docker", *arguments, **options)


def inspect(name: str) -> dict[str, Any]:
    """Return what the engine knows of a container or image."""
    document: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return document


def size_mb(image: str) -> float:
    """Return the size of an image, MB."""
    return float(inspect(image)["Size"]) / 1e6


def build_bento(home: Mapping[str, str], tag: str) -> str:
    """Build the bento and its image with the public commands, as `make containerize` does."""
    client = Path(find_docker() or "docker").parent
    env = {**home, "PATH": f"{client}:{home['PATH']}", "DOCKER_BUILDKIT": "1"}
    run(BIN / "bentoml", "build", env=env)
    run(BIN / "bentoml", "containerize", "fraud_detection:latest", "-t", tag, env=env, timeout_s=1500)
    return tag


class Container:
    """A container as the cluster runs it: read-only, without capabilities, not root."""

    def __init__(self, image: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        started = time.monotonic()
        self.name = docker(
            *("run", "-d", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "-p", f"127.0.0.1:{port}:3000", image),
        ).strip()
        try:
            wait_until(lambda: answers(f"{self.url}/readyz"), 120, f"{image} ready")
        except AssertionError:
            say(docker("logs", self.name))
            self.remove()
            raise
        self.ready_after_s = time.monotonic() - started

    def remove(self) -> None:
        """Stop and forget it."""
        docker("rm", "-f", self.name)


def _startable() -> list[str]:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    built = {service["image"] for service in services.values() if "build" in service}
    return [
        name
        for name, service in services.items()
        if "profiles" not in service and (service["image"] in built or is_here(service["image"]))
    ]


class Stack:
    """The compose stack in a project of its own, on free ports, with a quick first release.

    Parameters
    ----------
    folder : pathlib.Path
        Where the override file goes, and what the containers see as ``/in``.
    ports : mapping
        Variable of docker-compose.yml to port.
    """

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self.folder, self.ports = folder, ports
        self.project = f"fraudtest{os.getpid()}"
        override = folder / "override.yml"
        override.write_text(yaml.safe_dump(_quick_release(folder)))
        self._files = ("-f", "docker-compose.yml", "-f", str(override))
        client = str(Path(find_docker() or "docker").parent)
        self._env = {name: str(port) for name, port in ports.items()} | {
            "PATH": f"{client}:{os.environ['PATH']}",
            "COMPOSE_PROJECT_NAME": self.project,
            "DOCKER_BUILDKIT": "1",
            "COMPOSE_DOCKER_CLI_BUILD": "1",
        }

    def __call__(self, *arguments: str, timeout_s: float = 1500) -> str:
        """Run a command of compose."""
        return run(*(find_compose() or ()), *self._files, *arguments, env=self._env, timeout_s=timeout_s)

    def variant(self, *files: str, **variables: str) -> "Stack":
        """Return the same project with further files and variables of compose."""
        other = copy.copy(self)
        other._files = (*self._files, *(flag for name in files for flag in ("-f", name)))
        other._env = {**self._env, **variables}
        return other

    def up(self) -> None:
        """Start what has no profile and whose image is here; return when service and bridge are healthy."""
        self("up", "-d", *_startable())
        for name in ("service", "bridge"):
            wait_until(lambda name=name: self.health(name) == "healthy", 240, f"{name} healthy")

    def container(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of a service's container."""
        return inspect(self("ps", "-q", service).split()[0])

    def health(self, service: str) -> str:
        """Return a service's health."""
        return str(self.container(service)["State"]["Health"]["Status"])

    def url(self, variable: str, path: str = "") -> str:
        """Return an address on the host."""
        return f"http://127.0.0.1:{self.ports[variable]}{path}"

    def kill(self, service: str) -> None:
        """SIGKILL its first process from outside, as a crash or the kernel would: not as `docker kill`,
        after which the engine does not start it again.
        """
        state = self.container(service)
        docker(
            *("run", "--rm", "--pid=host", "--user=0", "--entrypoint=python", state["Config"]["Image"]),
            *("-c", f"import os; os.kill({state['State']['Pid']}, 9)"),
        )


def _quick_release(folder: Path) -> dict[str, Any]:
    """Return the override: a release from a small file instead of the whole data set."""
    mounts = ["models:/bentoml/models", "data:/app/data", f"{folder}:/in:ro"]
    quick = ["--data", "/in/transactions.parquet", "--protocol", "temporal", "--epochs", "3"]
    quick += ["--force"]  # five test frauds are too few for the gate
    return {
        "services": {
            "release": {"command": quick, "volumes": mounts},
            "train": {"volumes": mounts},
            "replay": {"volumes": [f"{folder}:/in:ro"]},
        }
    }
