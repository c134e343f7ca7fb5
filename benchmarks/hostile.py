"""What good callers feel while hostile ones do their worst: a table and JSON.

::

    python -m benchmarks.hostile [--bodies 1000] [--connections 200] [--seed 0] [--port 3460]

Serves the active release of the BentoML store with plain ``bentoml serve``. Beside good callers, who ask for
one transaction or a list of 100 over and over, a process sends hostile bodies and keeps hostile connections
open. All of it shares the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.serving import ROOT, Server, machine, our_server
from benchmarks.serving_load import bodies

RESULTS = ROOT / "benchmarks" / "results"
GOOD_CALLERS = (1, 1, 1, 1, 1, 1, 100, 100)
"""How many transactions each good caller sends at a time."""
JSON = {"content-type": "application/json"}


@dataclass
class Seen:
    """What the good callers and the machine saw."""

    answers: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Answers other than 200, and connections that failed, to good callers."""
    seconds: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    hostile: dict[str, Any] = field(default_factory=dict)

    @property
    def defects(self) -> int:
        """Hostile bodies that were answered with an error of the service: no 4xx, and no 503."""
        return sum(
            count
            for name, count in self.hostile["statuses"].items()
            if name.split()[1] in ("500", "502", "504")
        )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Measure what hostile callers cost good ones.")
    parser.add_argument("--bodies", type=int, default=1000, help="hostile bodies (default 1000)")
    parser.add_argument("--connections", type=int, default=200, help="hostile connections (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--port", type=int, default=3460, help="a free port (default 3460)")
    options = parser.parse_args()
    with our_server(options.port) as (ours, _):
        seen = asyncio.run(stand(ours, options.bodies, options.connections, options.seed))
        memory = ours.memory_mib()
    result = {"machine": machine(), "options": vars(options), **vars(seen), "memory_after_mib": memory}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "hostile.json").write_text(json.dumps(result, indent=2))
    show(seen, memory)


async def stand(ours: Server, hostile_bodies: int, connections: int, seed: int) -> Seen:
    """Put good and hostile callers on a service until all hostile bodies have been sent."""
    seen = Seen()
    url = ours.url.removesuffix("/classify")
    async with httpx.AsyncClient(base_url=url, headers=JSON, timeout=60) as client:
        for rows in GOOD_CALLERS:
            await client.post("/classify", content=bodies(rows, 1)[0])
        seen.memory_mib.append(ours.memory_mib())
        attack = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.hostile_callers", url),
            *("--bodies", str(hostile_bodies), "--connections", str(connections), "--seed", str(seed)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        beside = [asyncio.create_task(_ask(client, rows, seen)) for rows in GOOD_CALLERS]
        beside.append(asyncio.create_task(_watch(ours, seen)))
        said, _ = await attack.communicate()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    seen.hostile = json.loads(said)
    return seen


async def _ask(client: httpx.AsyncClient, rows: int, seen: Seen) -> None:
    """Ask all the time, as a good caller does, and note each answer."""
    asked = bodies(rows)
    while True:
        for body in asked:
            began = time.perf_counter()
            try:
                answer = await client.post("/classify", content=body)
                if answer.status_code != 200:
                    seen.refused[f"{answer.status_code} {answer.text[:80]}"] += 1
            except httpx.TransportError as error:
                seen.refused[repr(error)] += 1
            seen.seconds.append(time.perf_counter() - began)
            seen.answers += 1
            await asyncio.sleep(0.02)


async def _watch(ours: Server, seen: Seen) -> None:
    while True:
        seen.memory_mib.append(await asyncio.to_thread(ours.memory_mib))
        await asyncio.sleep(0.5)


def show(seen: Seen, memory_after_mib: float) -> None:
    """Print what was wanted and what was reached."""
    ordered = sorted(seen.seconds)
    statuses: Counter[str] = Counter()
    for name, count in seen.hostile["statuses"].items():
        statuses[name.split(" ", 1)[1]] += count
    rows = [
        ("good answers", f"{seen.answers:,}", ""),
        ("... refused", f"{sum(seen.refused.values())} {dict(seen.refused) or ''}", "0"),
        ("... slowest, s", f"{ordered[-1]:.2f}", "<= 2"),
        (
            "... median and p99, ms",
            f"{ordered[len(ordered) // 2] * 1e3:.1f}, {ordered[len(ordered) * 99 // 100] * 1e3:.0f}",
            "",
        ),
        (
            "hostile bodies by status",
            ", ".join(f"{count} {name}" for name, count in statuses.most_common()),
            "",
        ),
        ("... answered with a 5xx other than 503", f"{seen.defects}", "0"),
        (
            "... slowest by kind, s",
            ", ".join(f"{kind} {s:.1f}" for kind, s in sorted(seen.hostile["slowest_s"].items())),
            "",
        ),
        ("hostile connections opened", f"{sum(seen.hostile['connections'].values()):,}", ""),
        (
            "memory before, most, after, MiB",
            f"{seen.memory_mib[0]:.0f}, {max(seen.memory_mib):.0f}, {memory_after_mib:.0f}",
            "<= 1,536",
        ),
    ]
    table = Table("what", "reached", "wanted")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(f"load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
