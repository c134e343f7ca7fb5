"""How fast `python -m training score` scores files, and whether its memory stays the same: a table and JSON.

::

    python -m benchmarks.score [--rows 200000 2000000] [--rounds 3] [--masters 'local[2]']

Trains a release of full size on simulated transactions in a registry of its own, then scores files of both
kinds, each in a process of its own; medians over the rounds. A larger file repeats the smallest one. With
pyspark and Java the largest parquet file is also scored by Spark; processor time and memory are then those of
all its processes, Java's included.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SUFFIXES = (".parquet", ".csv")
PROCESS = "process"
MASTERS = ("local[2]", "local-cluster[2,1,1024]")
IN_ROWS = ("mapInPandas", "mapInArrow")


@dataclass(frozen=True)
class Run:
    """One scored file."""

    rows: int
    suffix: str
    engine: str  # process, or Spark's master
    rows_per_s: float  # as the command says: without starting Python and opening the registry
    wall_s: float  # all of it
    processor_s: float
    peak_mib: float
    start_s: float = 0.0  # of wall_s, until Spark could take tasks


def main(arguments: Sequence[str]) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[200_000, 2_000_000], help="sizes of the files"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument(
        "--masters",
        nargs="*",
        default=MASTERS if importlib.util.find_spec("pyspark") and shutil.which("java") else [],
        help="masters of Spark to score the largest parquet file with; none: without Spark",
    )
    parser.add_argument(
        "--in-rows",
        action="store_true",
        help="also let Spark read the rows and hand them to Python, which `score` does not",
    )
    options = parser.parse_args(arguments)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "BENTOML_HOME": str(folder / "bentoml"),
        }
        make_release(folder, home)
        files = make_files(folder, sorted(options.rows))
        work = [(file, rows, PROCESS) for file, rows in files.items()]
        largest = folder / f"{max(options.rows)}.parquet"
        work += [(largest, max(options.rows), master) for master in options.masters]
        if options.in_rows:
            work += [(largest, max(options.rows), f"{way} {MASTERS[0]}") for way in IN_ROWS]
        runs: list[Run] = []
        try:
            for item in work * options.rounds:
                runs.append(score(*item, home))
        finally:
            RESULTS.mkdir(parents=True, exist_ok=True)
            result = {
                "machine": {
                    "cores": os.cpu_count(),
                    "platform": platform.platform(),
                    "load_average_before": load,
                },
                "runs": [asdict(run) for run in runs],
            }
            (RESULTS / "score.json").write_text(json.dumps(result, indent=2))
            show(runs)


def make_release(folder: Path, home: Mapping[str, str]) -> None:
    """Promote a release of full size; its speed does not depend on how long it was trained."""
    data = str(folder / "training.parquet")
    command(["simulate", "--rows", "50000", "--output", data], home)
    command(["train", "--data", data, "--epochs", "2", "--force"], home)


def make_files(folder: Path, sizes: Sequence[int]) -> dict[Path, int]:
    """Write a file of each size and kind; return how many rows each holds."""
    first = folder / "first.parquet"
    command(["simulate", "--rows", str(sizes[0]), "--seed", "11", "--output", str(first)], {})
    table = pq.read_table(first)
    files = {}
    for rows in sizes:
        for suffix in SUFFIXES:
            path = folder / f"{rows}{suffix}"
            repeat(table, rows, path)
            files[path] = rows
    return files


def repeat(table: pa.Table, rows: int, path: Path) -> None:
    """Write the table over and over until there are so many rows."""
    kind = pq.ParquetWriter if path.suffix == ".parquet" else pacsv.CSVWriter
    with kind(path, table.schema) as writer:
        for start in range(0, rows, len(table)):
            writer.write_table(table.slice(0, rows - start), 65_536)


def command(arguments: Sequence[str], home: Mapping[str, str]) -> None:
    """Run a command of ``training``; end with what it said where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        env={**os.environ, **home},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"training {arguments[0]} failed: {done.stderr[-2000:]}")


def score(file: Path, rows: int, engine: str, home: Mapping[str, str]) -> Run:
    """Score a file in a process of its own, or with Spark."""
    output = file.with_name(f"scores{file.suffix}")
    arguments = [sys.executable, "-m", "training", "score", "--data", str(file), "--output", str(output)]
    if engine != PROCESS:
        folder = str(output.with_suffix(""))
        shutil.rmtree(folder, ignore_errors=True)
        arguments[-1:] = [folder, "--engine", "spark", "--master", engine]
        if engine.startswith(IN_ROWS):
            arguments[1:] = ["-m", "benchmarks.score_in_rows", *engine.split(" "), str(file), folder]
    environment = {**os.environ, **home, "COLUMNS": "1000"}
    used, started = Usage(), time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as out,
        subprocess.Popen(arguments, env=environment, cwd=ROOT, stdout=out) as process,
    ):
        while process.poll() is None:
            used.look(process.pid)
            time.sleep(0.02 if engine == PROCESS else 0.1)
        wall_s = time.perf_counter() - started
        out.seek(0)
        said = out.read()
    found = re.search(r"([\d,]+) transactions scored by .* \(([\d,]+)/s\)", said)
    if process.returncode or found is None or int(found[1].replace(",", "")) != rows:
        sys.exit(f"training score failed on {rows} rows: {said}")
    start = re.search(r"Start Spark.* ([\d.]+) s", said)
    rate = float(found[2].replace(",", ""))
    start_s = float(start[1]) if start else 0.0
    return Run(rows, file.suffix, engine, rate, wall_s, used.processor_s, used.peak_mib, start_s)


class Usage:
    """What a process and its children use, as seen while they run."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._processor_s: dict[int, float] = {}

    @property
    def processor_s(self) -> float:
        """Processor time of all processes, those that have ended as last seen."""
        return sum(self._processor_s.values())

    def look(self, pid: int) -> None:
        """Look once; the system's own figure for a child's peak begins at what its parent held."""
        held = 0.0
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            for process in (root := psutil.Process(pid), *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                    times = process.cpu_times()
                    self._processor_s[process.pid] = times.user + times.system
                    held += peak_of(process.pid)
        self.peak_mib = max(self.peak_mib, held)


def peak_of(pid: int) -> float:
    """Return the most memory a process has held so far, in MiB; 0 for one that has ended."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    return int(found[1]) / 1024 if found else 0.0


def show(runs: Sequence[Run]) -> None:
    """Print medians of each file and engine."""
    table = Table(title="python -m training score, medians", title_justify="left")
    columns = {
        "rows/s": "rows_per_s",
        "start, s": "start_s",
        "whole command, s": "wall_s",
        "processor, s": "processor_s",
        "peak, MiB": "peak_mib",
    }
    for column in ("engine", "file", "rows", *columns):
        table.add_column(column, justify="right")
    for key in dict.fromkeys((run.engine, run.rows, run.suffix) for run in runs):
        same = [run for run in runs if (run.engine, run.rows, run.suffix) == key]
        rate, *others = (statistics.median(getattr(run, name) for run in same) for name in columns.values())
        engine, rows, suffix = key
        table.add_row(engine, suffix, f"{rows:,}", f"{rate:,.0f}", *(f"{value:,.1f}" for value in others))
    Console(width=120).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
