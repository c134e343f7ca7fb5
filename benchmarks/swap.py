"""What a change of releases costs a running service: promotions and rollbacks in turn, under load.

::

    python -m benchmarks.swap [--swaps 20] [--minutes 60] [--rate 1000] [--port 3500] [--folder FOLDER]

Trains two small releases (kept in ``--folder`` for the next run) and serves one with plain ``bentoml serve``.
Then ``python -m training promote`` and ``rollback`` run in turn while 64 connections ask as fast as they can,
a client checks its answers against offline scoring, and a bridge decides 1,000 records a second. All of it
shares the machine, the command that promotes too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.serving import ROOT, Server, machine, server
from benchmarks.serving_load import Load, generator, put_load
from benchmarks.streaming_rig import Bridge, Rig, open_rig
from benchmarks.swap_checks import Checker, Expected, bodies_of, check_decisions, expect, pair_text
from demo.processes import Process

RESULTS = ROOT / "benchmarks" / "results"
CONNECTIONS = 64
WINDOW_S = 2.0
# An even number, so that the first measured one is a promotion again.
WARM_UP = 2


def main() -> None:
    """Measure and report."""
    options = read_options()
    result: dict[str, Any] = {"machine": machine(), "options": vars(options), "load_generator": generator()}
    with contextlib.ExitStack() as stack:
        folder = Path(options.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        home = prepare(folder)
        expected = expect(folder)
        os.environ.update(home)
        command = [str(Path(sys.executable).parent / "bentoml"), "serve", "--host", "127.0.0.1"]
        url = f"http://127.0.0.1:{options.port}"
        ours, _ = stack.enter_context(
            server([*command, "--port", str(options.port)], f"{url}/classify", f"{url}/readyz")
        )
        if options.rate:
            (folder / "rig").mkdir(exist_ok=True)
            rig = stack.enter_context(open_rig(folder / "rig", ours.url))
            stream = stack.enter_context(decide_stream(rig, options))
        result |= swap_in_turn(ours, url, expected, options)
        result["load_average_after"] = os.getloadavg()
        if options.rate:
            report(result)  # what the bridge decided takes minutes to check
            result |= stop_stream(rig, stream, expected)
    report(result)


def read_options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="Measure a change of releases while serving.")
    parser.add_argument("--swaps", type=int, default=20, help="promotions and rollbacks in turn (default 20)")
    parser.add_argument("--minutes", type=float, default=60, help="begin no swap after so long (default 60)")
    parser.add_argument("--rate", type=int, default=1000, help="records a second of the bridge; 0: no bridge")
    parser.add_argument("--port", type=int, default=3500, help="a free port (default 3500)")
    parser.add_argument("--folder", help="where releases and logs are kept (default: a temporary folder)")
    return parser.parse_args()


def prepare(folder: Path) -> dict[str, str]:
    """Train what is missing: two releases, the first of which is champion; return the variables of both."""
    home = {
        "BENTOML_HOME": str(folder / "bentoml"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "BENTOML_DO_NOT_TRACK": "True",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "training.parquet"
    if not data.exists():
        train(home, "simulate", "--rows", "20000", "--seed", "7", "--output", str(data))
        for seed in ("7", "8"):
            train(home, "train", "--data", str(data), "--epochs", "4", "--seed", seed, "--force")
    train(home, "promote", "2", "--force")
    train(home, "promote", "1", "--force")
    return home


def train(variables: dict[str, str], *arguments: str) -> None:
    """Run a command of training to its end."""
    command = [sys.executable, "-m", "training", *arguments]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"training {arguments[0]} failed: {done.stderr[-500:]}")


@contextlib.contextmanager
def decide_stream(rig: Rig, options: argparse.Namespace) -> Iterator[Stream]:
    """Run a bridge and a replay beside everything else."""
    topic = rig.topic()
    bridge = rig.bridge(topic)
    with bridge.process:
        replay = rig.replay(topic, 100_000_000, options.rate, wait=False)
        try:
            yield Stream(topic, bridge, replay)
        finally:
            replay.stop()


@dataclass
class Stream:
    """A topic, what fills it and what decides it."""

    topic: str
    bridge: Bridge
    replay: Process


def stop_stream(rig: Rig, stream: Stream, expected: Expected) -> dict[str, Any]:
    """Return what the bridge decided, checked, once it has decided all that was sent."""
    stream.replay.stop()
    decided = -1.0
    while decided != (decided := stream.bridge.decided()):
        time.sleep(2.0)
    found = stream.bridge.metrics().items()
    dead = sum(value for name, value in found if name.startswith("bridge_dead_letters_total"))
    return {"bridge": {**check_decisions(rig, stream.topic, expected), "dead_letters": dead}}


def swap_in_turn(ours: Server, url: str, expected: Expected, options: argparse.Namespace) -> dict[str, Any]:
    """Promote and roll back in turn under load; return what was measured."""
    load = Asking(ours.url, expected)
    measured: list[dict[str, float]] = []
    ends = time.monotonic() + 60 * options.minutes
    with Checker(ours.url, expected) as checker:
        put_load(ours.url, load.bodies, CONNECTIONS, 3)
        for number in range(WARM_UP):  # what is loaded for the first time stays: libraries, pools
            swap(url, expected, number, load)
        memory = {"before": ours.memory_mib()}
        while len(measured) < options.swaps and (not measured or time.monotonic() < ends):
            measured.append(swap(url, expected, len(measured), load))
            print(f"swap {len(measured)} of {options.swaps}: {measured[-1]}", flush=True)
        time.sleep(3.0)
        memory["after"] = ours.memory_mib()
    return {"swaps": measured, "memory_mib": memory, "load": load.totals(), "checked": checker.totals()}


class Asking:
    """64 connections that ask as fast as they can, in windows."""

    def __init__(self, url: str, expected: Expected) -> None:
        self._url = url
        self.bodies = bodies_of(expected)
        self._accepted = [pair_text(release) for release in expected.releases]
        self._windows: list[tuple[float, float, Load]] = []

    def window(self, seconds: float) -> Load:
        """Ask for so long."""
        began = time.time()
        load = put_load(self._url, self.bodies, CONNECTIONS, seconds, self._accepted)
        self._windows.append((began, time.time(), load))
        return load

    def worst_p99_ms(self, start: float, end: float) -> float:
        """Return the greatest p99 of the windows that touch a span of Unix time; NaN if none does."""
        touching = [load.p99_ms for began, ended, load in self._windows if began < end and ended > start]
        return max(touching, default=float("nan"))

    def totals(self) -> dict[str, int]:
        """Return the sums over all windows."""
        return {
            name: sum(getattr(load, name) for _, _, load in self._windows)
            for name in ("requests", "failed", "foreign")
        }


def swap(url: str, expected: Expected, number: int, load: Asking) -> dict[str, float]:
    """Change to the other release once; return how long it took and what it did to the latency.

    Around the swap means the two seconds after the store names the other release: both models are loaded,
    answers change over, the old pair is dropped. The command goes on running meanwhile, on the same cores.
    """
    before = load.window(WINDOW_S)
    target = expected.releases[(number + 1) % 2]
    command = ["promote", target, "--force"] if number % 2 == 0 else ["rollback"]
    watch = Watch(url, target)
    promoted = threading.Thread(target=watch.run, args=(command,))
    began = time.time()
    promoted.start()
    while time.time() < watch.recorded_at() + WINDOW_S:
        if not promoted.is_alive() and watch.recorded_at() == float("inf"):
            raise SystemExit(f"{' '.join(command)} changed nothing in the store.")
        load.window(1.0)
    recorded = watch.recorded_at()
    promoted.join()
    after = load.window(WINDOW_S)
    return {
        "seconds": watch.seconds,
        "seconds_from_record": watch.seconds_from_record,
        "p99_before_ms": before.p99_ms,
        "p99_command_ms": load.worst_p99_ms(began, recorded - 1.0),
        "p99_around_ms": load.worst_p99_ms(recorded, recorded + WINDOW_S),
        "p99_after_ms": after.p99_ms,
    }


class Watch:
    """Runs a command that promotes, and looks for the first answer of the release."""

    def __init__(self, url: str, target: str) -> None:
        self._url, self._target = url, target
        self._record = Path(os.environ["BENTOML_HOME"], "models", "releases.json")
        self._recorded_before = self._record.stat().st_mtime
        self.seconds = self.seconds_from_record = float("nan")

    def recorded_at(self) -> float:
        """Return the Unix time at which the store named another release; infinity if it has not yet."""
        recorded = self._record.stat().st_mtime
        return float("inf") if recorded == self._recorded_before else recorded

    def run(self, command: list[str]) -> None:
        """Run the command and wait for the release's first answer; negative: it came before the end."""
        first: list[float] = []
        looker = threading.Thread(target=self._look, args=(first,))
        looker.start()
        train({}, *command)
        ended = time.time()
        looker.join()
        self.seconds = first[0] - ended
        self.seconds_from_record = first[0] - self.recorded_at()

    def _look(self, first: list[float]) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"{self._url}/info", timeout=10) as answer:
                if json.load(answer)["release"] == self._target:
                    first.append(time.time())
                    return
            time.sleep(0.02)
        raise SystemExit(f"release {self._target} was not served within 120 s")


def report(result: dict[str, Any]) -> None:
    """Keep the result, and print what was wanted and what was reached."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "swap.json").write_text(json.dumps(result, indent=2, default=str))
    swaps, memory = result["swaps"], result["memory_mib"]
    load, checked, bridge = result["load"], result["checked"], result.get("bridge", {})
    asked = load["requests"] + checked["answers"]
    wrong, dead = bridge.get("wrong", "not checked yet"), bridge.get("dead_letters", "not checked yet")
    slower = [one["p99_around_ms"] / one["p99_before_ms"] for one in swaps]
    rows = [
        ("answers that failed", f"{load['failed'] + checked['failed']} of {asked:,}", "0"),
        ("answers of no one release", f"{load['foreign'] + checked['mixed']} of {asked:,}", "0"),
        ("scores off by more than 1e-6", f"{checked['off']} of {checked['scores']:,}", "0"),
        ("bridge: decisions mixed or off", f"{wrong} of {bridge.get('decisions', 0):,}", "0"),
        ("bridge: dead letters", f"{dead}", "0"),
        (
            "seconds from promote's end to the first answer, most",
            f"{max(one['seconds'] for one in swaps):.2f}",
            "<= 5",
        ),
        ("... from the store's record, most", f"{max(one['seconds_from_record'] for one in swaps):.2f}", ""),
        ("p99 around a swap against before, median", f"{statistics.median(slower):.2f}", "<= 2"),
        ("... the most of all swaps", f"{max(slower):.2f}", ""),
        ("memory after against before", f"{memory['after'] / memory['before'] - 1:+.1%}", "<= +5 %"),
    ]
    table = Table("what", "reached", "wanted", title=f"{len(swaps)} promotions and rollbacks in turn")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
