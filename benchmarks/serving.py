"""How fast ``/classify`` is, against the original's server in the same run: a table, JSON and a plot.

::

    python -m benchmarks.serving [--seconds 5] [--rounds 3] [--soak-minutes 0] [--before FOLDER]

Serves the active release of the BentoML store with plain ``bentoml serve``. Servers take turns within each
round, so that a busy machine slows all of them; medians over the rounds. The load generator shares the
machine. Two more servers show what the service's own paths buy: itself with the gathering in the gateway
switched off, and the same two models composed as BentoML's documentation does it. With ``--before`` the
checkout of another version, set up with a ``.venv`` of its own, serves the same release in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.serving_load import bodies, generator, put_load
from benchmarks.serving_original import VARIANTS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SIZES = (1, 100, 300, 1000)
CONNECTIONS = 64
LIST_CONNECTIONS = 8
PLAIN, ALONE, BEFORE = "plain BentoML", "ours without gathering", "the version before"
# Every request goes to the runners by itself, so that only BentoML's adaptive batching gathers.
WITHOUT_GATHERING = {
    "SERVING__GATEWAY__MAX_BATCH_ROWS": "1",
    "SERVING__GATEWAY__GATHER_ROWS": "1",
    "SERVING__GATEWAY__MAX_BATCHES_IN_FLIGHT": "1000",
}


def main() -> None:
    """Measure and report."""
    options = read_options()
    result: dict[str, Any] = {"machine": machine(), "options": vars(options), "load_generator": generator()}
    with ExitStack() as stack:
        ours, result["ready_s"] = stack.enter_context(our_server(options.port))
        others = {
            f"original {name}": stack.enter_context(original_server(name, options.port + 1 + number))
            for number, name in enumerate(VARIANTS)
        }
        others[ALONE], _ = stack.enter_context(our_server(options.port + 3, variables=WITHOUT_GATHERING))
        others[PLAIN], _ = stack.enter_context(
            our_server(options.port + 4, "benchmarks.serving_plain:PlainFraudDetection")
        )
        if options.before is not None:
            others[BEFORE], _ = stack.enter_context(our_server(options.port + 5, folder=options.before))
        warm_up([ours.url, *(other.url for other in others.values())])
        result["memory_before_mib"] = ours.memory_mib()
        result["rounds"] = [one_round(ours, others, options.seconds) for _ in range(options.rounds)]
        if options.soak_minutes:
            result["soak"] = soak(ours, options.soak_minutes)
        result["memory_after_mib"] = ours.memory_mib()
        result["batching"] = batching(ours.url)
    result["load_average_after"] = os.getloadavg()
    result["summary"] = summary(result)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "serving.json").write_text(json.dumps(result, indent=2, default=str))
    plot(result, RESULTS / "serving.png")
    show(result)


def read_options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="Measure /classify against the original's server.")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--soak-minutes", type=float, default=0.0, help="steady load for memory (default 0)")
    parser.add_argument("--port", type=int, default=3400, help="first of six free ports (default 3400)")
    parser.add_argument("--before", type=Path, help="checkout of another version, to serve beside this one")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Describe where this runs."""
    return {
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class Server:
    """A running server.

    Parameters
    ----------
    url : str
        Where it classifies.
    process : subprocess.Popen
        Its first process.
    """

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self._process = process

    def memory_mib(self) -> float:
        """Return the unshared memory of all its processes."""
        return sum(process.memory_full_info().uss for process in self._processes()) / 2**20

    def cpu_s(self) -> float:
        """Return the processor time all its processes have taken; says more than a rate on a busy machine."""
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]


@contextmanager
def server(
    command: list[str], url: str, probe: str, variables: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Iterator[tuple[Server, float]]:
    """Start a server; yield it with the seconds until `probe` answered."""
    started = time.perf_counter()
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "True", **(variables or {})}
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=environment)
    try:
        while not answers(probe):
            if process.poll() is not None or time.perf_counter() - started > 300:
                raise SystemExit(f"{' '.join(command)} did not become ready.")
            time.sleep(0.02)
        yield Server(url, process), time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(30)


def our_server(
    port: int, service: str = ".", variables: Mapping[str, str] | None = None, folder: Path = ROOT
) -> AbstractContextManager[tuple[Server, float]]:
    """Serve the active release as a user would: with settings of its own, by another service or version."""
    programs = Path(sys.executable).parent if folder == ROOT else folder.resolve() / ".venv" / "bin"
    bentoml = str(programs / "bentoml")
    command = [bentoml, "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    paths = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}  # BentoML starts its workers by name
    return server(command, f"{url}/classify", f"{url}/readyz", paths | dict(variables or {}), folder)


@contextmanager
def original_server(variant: str, port: int) -> Iterator[Server]:
    """Serve the original's network."""
    command = [sys.executable, "-m", "benchmarks.serving_original", variant, str(port)]
    url = f"http://127.0.0.1:{port}"
    with server(command, url, f"{url}/health") as (running, _):
        running.url += "/predict"
        yield running


def answers(url: str) -> bool:
    """Say whether `url` answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def warm_up(urls: list[str]) -> None:
    """Let every server do everything once before it counts."""
    for url in urls:
        put_load(url, bodies(1), CONNECTIONS, 1)
    put_load(urls[0], bodies(1000), LIST_CONNECTIONS, 1)


def one_round(ours: Server, others: dict[str, Server], seconds: float) -> dict[str, Any]:
    """Return one measurement of everything."""
    measured: dict[str, Any] = {}

    def measure(name: str, asked: Server, rows: int, connections: int, length: float = seconds) -> None:
        before = asked.cpu_s()
        load = put_load(asked.url, bodies(rows), connections, length)
        cpu_us = (asked.cpu_s() - before) / max(1, load.requests) * 1e6
        measured[name] = {
            **vars(load),
            "per_second": load.per_second,
            "rows_per_second": rows * load.per_second,
            "cpu_us": cpu_us,
        }

    measure("ours, before the burst, 1 connection", ours, 1, 1, 2)
    measure("ours, 64 connections", ours, 1, CONNECTIONS)
    for name, other in others.items():
        measure(f"{name}, 64 connections", other, 1, CONNECTIONS)
    measure("ours, after the burst, 1 connection", ours, 1, 1, 2)
    for name, other in others.items():
        measure(f"{name}, 1 connection", other, 1, 1, 2)
    for rows in SIZES[1:]:
        measure(f"ours, lists of {rows}", ours, rows, LIST_CONNECTIONS, max(2.0, seconds / 2))
        if BEFORE in others:
            measure(
                f"{BEFORE}, lists of {rows}", others[BEFORE], rows, LIST_CONNECTIONS, max(2.0, seconds / 2)
            )
    return measured


def soak(ours: Server, minutes: float) -> list[dict[str, float]]:
    """Put steady mixed load for so long; return memory by minute."""
    points = []
    ends = time.monotonic() + 60 * minutes
    while time.monotonic() < ends:
        put_load(ours.url, bodies(1), CONNECTIONS, 25)
        put_load(ours.url, bodies(1000), LIST_CONNECTIONS, 5)
        points.append({"seconds_left": ends - time.monotonic(), "memory_mib": ours.memory_mib()})
    return points


def batching(url: str) -> dict[str, float]:
    """Return what the service's own metrics say about the batches."""
    with urllib.request.urlopen(url.replace("/classify", "/metrics"), timeout=10) as answer:
        lines = [
            line.rpartition(" ") for line in answer.read().decode().splitlines() if "{" in line or "_" in line
        ]

    def total(*parts: str) -> float:
        found = [
            float(v) for name, _, v in lines if not name.startswith("#") and all(p in name for p in parts)
        ]
        return sum(found)

    adaptive = {
        runner: total("adaptive_batch_size_sum", runner) / max(1, total("adaptive_batch_size_count", runner))
        for runner in ("NeuralNetRunner", "XGBoostRunner")
    }
    rows = total("fraud_batch_rows_sum") / max(1, total("fraud_batch_rows_count"))
    requests = total("fraud_batch_requests_sum") / max(1, total("fraud_batch_requests_count"))
    return {
        "rows_per_call": rows,
        "requests_per_call": requests,
        **{f"calls per batch, {k}": v for k, v in adaptive.items()},
    }


def summary(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each target with what was reached: medians over the rounds."""
    rounds = result["rounds"]

    def median(value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(measured) for measured in rounds)

    def ratio(name: str) -> float:
        ours = "ours, 64 connections"
        return median(lambda r: r[ours]["per_second"] / r[f"{name}, 64 connections"]["per_second"])

    def rows(size: int) -> float:
        return median(lambda r: r[f"ours, lists of {size}"]["rows_per_second"])

    flat = [rows(size) for size in SIZES[1:]]
    failed = sum(
        load["failed"] for measured in rounds for name, load in measured.items() if name.startswith("ours,")
    )
    before, after = "ours, before the burst, 1 connection", "ours, after the burst, 1 connection"
    return {
        "processor time of a single request against the original's, at 64 connections": {
            "reached": median(
                lambda r: r["original plain, 64 connections"]["cpu_us"] / r["ours, 64 connections"]["cpu_us"]
            ),
            "target": "",
        },
        "single requests, 64 connections, against the original": {
            "reached": ratio("original plain"),
            "target": ">= 10",
        },
        "... against the original with uvloop, httptools, 2 workers": {
            "reached": ratio("original tuned"),
            "target": ">= 2.5",
        },
        "... against a plain BentoML composition of the same models": {
            "reached": ratio(PLAIN),
            "target": "",
        },
        "... against itself without gathering in the gateway": {"reached": ratio(ALONE), "target": ""},
        **(
            {"... against the version before": {"reached": ratio(BEFORE), "target": ">= 1"}}
            if f"{BEFORE}, 64 connections" in rounds[0]
            else {}
        ),
        "requests per second, 64 connections": {
            "reached": median(lambda r: r["ours, 64 connections"]["per_second"]),
            "target": "",
        },
        "p99 at 64 connections, ms": {
            "reached": median(lambda r: r["ours, 64 connections"]["p99_ms"]),
            "target": "<= 25",
        },
        "failed requests": {"reached": float(failed), "target": "0"},
        "p50 at one connection, ms": {"reached": median(lambda r: r[before]["p50_ms"]), "target": "<= 1"},
        "p50 at one connection after a burst, ratio": {
            "reached": median(lambda r: r[after]["p50_ms"] / r[before]["p50_ms"]),
            "target": "<= 1.2",
        },
        "rows per second, lists of 1000": {"reached": rows(1000), "target": ">= 120000"},
        "lists of 100 against lists of 1000, rows per second": {
            "reached": flat[0] / flat[-1],
            "target": "0.9 to 1.1",
        },
        "seconds to ready": {"reached": result["ready_s"], "target": "<= 5"},
        "memory growth, MiB": {
            "reached": result["memory_after_mib"] - result["memory_before_mib"],
            "target": "flat",
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    table = Table(
        *("load", "requests/s", "rows/s", "p50 ms", "p99 ms", "failed", "CPU µs"),
        title="medians over the rounds",
    )
    for name in result["rounds"][0]:
        values = [measured[name] for measured in result["rounds"]]
        cells = [
            statistics.median(v[key] for v in values)
            for key in ("per_second", "rows_per_second", "p50_ms", "p99_ms", "failed", "cpu_us")
        ]
        table.add_row(
            name, *(f"{cell:,.{digits}f}" for cell, digits in zip(cells, (0, 0, 2, 2, 0, 0), strict=True))
        )
    console.print(table)
    targets = Table("target", "reached", "wanted")
    for name, line in result["summary"].items():
        targets.add_row(name, f"{line['reached']:,.2f}", line["target"])
    console.print(targets)
    console.print("batches:", ", ".join(f"{name} {value:.1f}" for name, value in result["batching"].items()))
    before, after = result["machine"]["load_average_before"][0], result["load_average_after"][0]
    console.print(f"load average before and after: {before:.1f}, {after:.1f}")


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw requests per second of all servers, and rows per second over the list's length."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rounds = result["rounds"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    names = ["original plain", PLAIN, "original tuned", ALONE, "ours"]
    speeds = [[measured[f"{name}, 64 connections"]["per_second"] for measured in rounds] for name in names]
    left.barh(
        names,
        [statistics.median(values) for values in speeds],
        color=["#999999", "#bbbbbb", "#777777", "#85b4d4", "#1f77b4"],
    )
    for place, values in enumerate(speeds):
        left.plot(values, [place] * len(values), "k|")
        left.text(statistics.median(values), place, f"  {statistics.median(values):,.0f}", va="bottom")
    left.set(title="Single transactions, 64 connections", xlabel="requests per second")
    left.margins(x=0.2)
    sizes = SIZES[1:]
    rows = [[measured[f"ours, lists of {size}"]["rows_per_second"] for size in sizes] for measured in rounds]
    for values in rows:
        right.plot(sizes, values, "o-", color="#1f77b4", alpha=0.5)
    right.axhline(120_000, color="#cc0000", linestyle=":", label="target")
    right.set(xlabel="transactions per list", ylabel="transactions per second", ylim=0)
    right.set(title=f"Lists, {LIST_CONNECTIONS} connections")
    right.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
