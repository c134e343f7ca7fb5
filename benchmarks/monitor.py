"""How many records a second the monitor takes in, with how much memory and disk; SQLite against others.

Run it with ``python -m benchmarks.monitor``. Three parts:

- drain: topics are filled with transactions, decisions and labels, then the monitor reads them from their
  beginning; records a second of wall time and of one core, and memory at a tenth, at half and at the end;
- disk: bytes a transaction takes, and what 90 days at 1,000 a second take by that;
- stores: the monitor's access pattern on SQLite, LMDB and RocksDB, where the packages ``lmdb`` and
  ``rocksdict`` are installed (the monitor itself needs neither).
"""

import argparse
import contextlib
import os
import random
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.monitor_stores import measure_stores
from demo.brokers import open_broker
from tests.e2e.monitor_world import MonitorWorld
from tests.info_service import InfoService, document
from tests.monitored_stream import Sent, tell

warnings.simplefilter("ignore", ResourceWarning)
PART = 20_000
NINETY_DAYS = 90 * 86_400 * 1000  # transactions in 90 days at 1,000 a second
console = Console()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=200_000)
    parser.add_argument("--store-rows", type=int, default=2_000_000, help="0: leave the stores out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        drain(Path(folder), options.transactions)
        if options.store_rows:
            measure_stores(Path(folder), options.store_rows, console)


def drain(folder: Path, transactions: int) -> None:
    """Fill the topics, then let a monitor read them."""
    documents = {release: document(release) for release in ("12", "13")}
    with open_broker(folder / "broker") as broker, InfoService(documents) as info:
        settings = {"monitor__info_url": info.url("12"), "monitor__info_refresh_s": 1}
        with MonitorWorld(broker.address, folder, **settings) as world:
            total = sum(_fill(world, part) for part in _parts(world, transactions))
            console.print(f"{total:,} records of {transactions:,} transactions in {broker.address}")
            _measure(world, total, transactions)


def _parts(world: MonitorWorld, transactions: int) -> Iterator[list[Sent]]:
    offsets: dict[tuple[str, int], int] = {}
    now_ms = int(time.time() * 1000)
    for first in range(0, transactions, PART):
        ago_ms = (transactions - first) // 10
        yield tell(
            world.topics,
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


if __name__ == "__main__":
    random.seed(1)
    with contextlib.suppress(KeyboardInterrupt):
        main()
