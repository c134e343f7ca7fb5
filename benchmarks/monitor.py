"""How many records a second the monitor takes in, with how much memory and disk; SQLite against others.

Run it with ``python -m benchmarks.monitor``. Three parts, and a fourth with ``--soak TRANSACTIONS``:

- drain: topics are filled with transactions, decisions and labels, then the monitor reads them from their
  beginning; records a second of wall time and of one core, and memory at a tenth, at half and at the end;
- disk: bytes a transaction takes, and what 90 days at 1,000 a second take by that;
- stores: the monitor's access pattern on SQLite, LMDB and RocksDB, where the packages ``lmdb`` and
  ``rocksdict`` are installed (the monitor itself needs neither);
- soak: memory at each tenth of so many transactions, taken in, watched for drift and reported as in the
  monitor's loop, but made in the same process and not read from a broker.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.monitor_stores import measure_stores
from demo.brokers import open_broker
from streaming.monitor.drift.watch import DriftWatch
from streaming.monitor.intake import Intake
from streaming.monitor.observations import CHAMPION
from streaming.monitor.promises import read_promise
from streaming.monitor.quality.report import Reporter
from streaming.monitor.store.state import State
from streaming.settings.drift import DriftSettings
from streaming.settings.monitor import MonitorSettings
from tests.e2e.monitor_world import MonitorWorld
from tests.info_service import InfoService, document
from tests.monitored_stream import Sent, Stream, tell

warnings.simplefilter("ignore", ResourceWarning)
PART = 20_000
STREAMS = {"transactions": "in", "decisions": "out", "shadow": "out.shadow", "labels": "labels"}
NINETY_DAYS = 90 * 86_400 * 1000  # transactions in 90 days at 1,000 a second
console = Console()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=200_000)
    parser.add_argument("--store-rows", type=int, default=2_000_000, help="0: leave the stores out")
    parser.add_argument("--soak", type=int, default=0, help="only this part, with so many transactions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.soak:
            soak(Path(folder), options.soak)
            return
        drain(Path(folder), options.transactions)
        if options.store_rows:
            measure_stores(Path(folder), options.store_rows, console)


def drain(folder: Path, transactions: int) -> None:
    """Fill the topics, then let a monitor read them."""
    documents = {release: document(release) for release in ("12", "13")}
    with open_broker(folder / "broker") as broker, InfoService(documents) as info:
        settings = {"monitor__info_url": info.url("12"), "monitor__info_refresh_s": 1}
        with MonitorWorld(broker.address, folder, **settings) as world:
            total = sum(_fill(world, part) for part in _parts(world.topics, transactions))
            console.print(f"{total:,} records of {transactions:,} transactions in {broker.address}")
            _measure(world, total, transactions)


def _parts(topics: dict[str, str], transactions: int) -> Iterator[list[Sent]]:
    offsets: dict[tuple[str, int], int] = {}
    now_ms = int(time.time() * 1000)
    for first in range(0, transactions, PART):
        ago_ms = (transactions - first) // 10
        yield tell(
            topics,
            seed=1,
            first=first,
            rows=min(PART, transactions - first),
            now_ms=now_ms - ago_ms,
            span_ms=3_600_000,
            fraud_share=0.003,
            shadow=False,
            offsets=offsets,
        ).records


def _fill(world: MonitorWorld, records: list[Sent]) -> int:
    world.send(records)
    return len(records)


def _measure(world: MonitorWorld, total: int, transactions: int) -> None:
    world.start()
    process = psutil.Process(world.monitor.pid)
    marks = {}
    begun = time.monotonic()
    while (read := world.records_read(world.document())) < total:
        if read and "begin" not in marks:
            marks["begin"] = (time.monotonic(), read, process.cpu_times().user + process.cpu_times().system)
        for share in (0.1, 0.5):
            if read >= share * total:
                marks.setdefault(f"{share:.0%}", process.memory_info().rss)
        time.sleep(0.05)
        assert time.monotonic() - begun < 600, "the monitor does not get to the end"
    at, already, spent = marks["begin"]
    seconds = time.monotonic() - at
    cpu = process.cpu_times().user + process.cpu_times().system - spent
    memory = [marks.get("10%"), marks.get("50%"), process.memory_info().rss]
    table = Table(title="caught up")
    for heading in (
        "records/s",
        "cores",
        "records per core second",
        "memory at 10 %, 50 %, end, MiB",
        "load",
    ):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{(total - already) / seconds:,.0f}",
        f"{cpu / seconds:.2f}",
        f"{(total - already) / cpu:,.0f}",
        ", ".join(f"{size / 2**20:.0f}" if size else "-" for size in memory),
        f"{os.getloadavg()[0]:.1f}",
    )
    console.print(table)
    world.monitor.stop()
    size = sum(file.stat().st_size for file in (world.folder / "state").glob("monitor.sqlite*"))
    console.print(
        f"{size / transactions:.0f} bytes on disk a transaction: "
        f"{size / transactions * NINETY_DAYS / 1e9:,.0f} GB for 90 days at 1,000 a second"
    )


def soak(folder: Path, transactions: int) -> None:
    """Take transactions in without a broker; print the memory of the process at each tenth."""
    settings = MonitorSettings(state=folder / "soak")
    with contextlib.closing(State(settings)) as state:
        state.note_document(CHAMPION, "12", json.dumps(document("12")))
        drift = DriftWatch(DriftSettings(), {})
        drift.follow(CHAMPION, "12", read_promise(state.document(CHAMPION, "12")))
        intake, reporter = Intake(STREAMS), Reporter(state, settings)
        marks: list[float] = []
        parts = _parts(STREAMS, transactions)
        for number, records in enumerate(track(parts, "soak", total=transactions // PART)):
            waiting = Stream(STREAMS, records).inputs()
            while (batch := intake.read(itertools.islice(waiting, settings.max_batch_records))).next_offsets:
                state.apply(batch, {}, drift.update(batch.payments, batch.decisions))
            reporter.report(int(time.time() * 1000))
            if (number + 1) * PART * 10 // transactions > len(marks):
                marks.append(psutil.Process().memory_info().rss / 2**20)
    tenths = " ".join(f"{one:.0f}" for one in marks)
    console.print(f"memory at each tenth of {transactions:,} transactions, MiB: {tenths}")


if __name__ == "__main__":
    random.seed(1)
    with contextlib.suppress(KeyboardInterrupt):
        main()
