"""How fast `python -m training score` scores files, and whether its memory stays the same: a table and JSON.

::

    python -m benchmarks.score [--rows 200000 2000000] [--rounds 3]

Trains a release of full size on simulated transactions in a registry of its own, then scores files of both
kinds, each in a process of its own; medians over the rounds. A larger file repeats the smallest one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Run:
    """One scored file."""

    rows: int
    suffix: str
    rows_per_s: float  # as the command says: without starting Python and opening the registry
    wall_s: float  # all of it
    processor_s: float
    peak_mib: float


def main(arguments: Sequence[str]) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[200_000, 2_000_000], help="sizes of the files"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
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
        runs = [score(file, rows, home) for _ in range(options.rounds) for file, rows in files.items()]
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": {"cores": os.cpu_count(), "platform": platform.platform(), "load_average_before": load},
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


def score(file: Path, rows: int, home: Mapping[str, str]) -> Run:
    """Score a file in a process of its own."""
    output = file.with_name(f"scores{file.suffix}")
    arguments = [sys.executable, "-m", "training", "score", "--data", str(file), "--output", str(output)]
    environment = {**os.environ, **home, "COLUMNS": "1000"}
    peak_mib, started = 0.0, time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as out,
        subprocess.Popen(arguments, env=environment, cwd=ROOT, stdout=out) as process,
    ):
        # The system's own figure for a child begins at what its parent held, so the child is asked instead.
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak_mib = max(peak_mib, peak_of(process.pid))
            time.sleep(0.02)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        out.seek(0)
        said = out.read()
    used = ended[2]
    found = re.search(r"([\d,]+) transactions scored by .* \(([\d,]+)/s\)", said)
    if process.returncode or found is None or int(found[1].replace(",", "")) != rows:
        sys.exit(f"training score failed on {rows} rows: {said}")
    rate = float(found[2].replace(",", ""))
    return Run(rows, file.suffix, rate, wall_s, used.ru_utime + used.ru_stime, peak_mib)


def peak_of(pid: int) -> float:
    """Return the most memory a process has held so far, in MiB; 0 for one that has ended."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    return int(found[1]) / 1024 if found else 0.0


def show(runs: Sequence[Run]) -> None:
    """Print medians of each file."""
    table = Table(title="python -m training score, medians", title_justify="left")
    for column in ("file", "rows", "rows/s", "whole command, s", "processor time, s", "peak memory, MiB"):
        table.add_column(column, justify="right")
    for rows, suffix in sorted({(run.rows, run.suffix) for run in runs}):
        same = [run for run in runs if (run.rows, run.suffix) == (rows, suffix)]
        rate, wall, processor, peak = (
            statistics.median(getattr(run, name) for run in same)
            for name in ("rows_per_s", "wall_s", "processor_s", "peak_mib")
        )
        table.add_row(suffix, f"{rows:,}", f"{rate:,.0f}", f"{wall:.1f}", f"{processor:.1f}", f"{peak:,.0f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
