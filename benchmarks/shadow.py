"""Does a challenger in shadow slow the champion down? ``python -m benchmarks.shadow`` tells.

A filled topic is drained in interleaved rounds: by the champion's bridge alone, and by it while a second
service and bridge decide the same transactions. All share this machine's cores, so the shadow has the lowest
priority (nice 19), as docker-compose.yml gives it the fewest ``cpu_shares``: it falls behind while the
champion wants every core, and catches up afterwards. How long that takes is measured too. In each round the
champion decides the same topic twice, and what it writes has to be the same to the byte, less the times.
"""

import argparse
import hashlib
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.streaming import RESULTS, drain
from benchmarks.streaming_rig import Rig, decided_per_second, open_rig, read_all, wait_until

TARGET = 0.9


def drain_with_shadow(rig: Rig, url: str, topic: str, records: int) -> dict[str, Any]:
    """Drain a topic once more while a shadow decides it too; then let the shadow finish."""
    again, shadow = rig.topic(), rig.topic()
    champion, challenger = rig.bridge(topic, output=again), rig.shadow_bridge(url, topic, shadow)
    challenger.process.start()
    wait_until(lambda: challenger.decided() > 0, 120)
    # It works, and still has nearly everything before it when the champion begins.
    os.kill(challenger.process.pid, signal.SIGSTOP)
    champion.process.start()
    wait_until(lambda: champion.decided() > 0, 60)
    os.kill(challenger.process.pid, signal.SIGCONT)
    wait_until(lambda: champion.decided() >= records, 600)
    behind = records - challenger.decided()
    begun = time.monotonic()
    champion.process.stop()
    wait_until(lambda: challenger.decided() >= records, 600)
    caught_up_s = time.monotonic() - begun
    challenger.process.stop()
    decided, rate = decided_per_second(rig.servers, again)
    shadowed, _ = decided_per_second(rig.servers, shadow)
    assert (decided, shadowed) == (records, records), f"{decided} and {shadowed} decisions, not {records}"
    same = undated(rig.servers, again) == undated(rig.servers, topic)
    return {"per_second": rate, "behind": behind, "caught_up_s": caught_up_s, "same_bytes": same}


def undated(servers: str, topic: str) -> dict[int, str]:
    """Return a digest of each partition's keys and decisions, in order, without the time of the decision."""
    digests: dict[int, Any] = {}
    for record in read_all(servers, f"{topic}.out"):
        head, mark, _ = record.value.rpartition(b',"decided_at_ms":')
        assert mark, record
        digests.setdefault(record.partition, hashlib.sha256()).update(record.key + b"\n" + head + b"\n")
    return {partition: digest.hexdigest() for partition, digest in digests.items()}


def run(rounds: int, records: int) -> dict[str, Any]:
    """Measure everything; return the document that is written."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, open_rig(Path(folder), None) as rig:
        drain(rig, records // 4, 1)  # the broker's JVM compiles what this load needs
        alone, shadowed = [], []
        with rig.shadow_service() as url:
            for _ in range(rounds):
                first = drain(rig, records, 1)
                alone.append(first["per_second"])
                shadowed.append(drain_with_shadow(rig, url, first["topic"], records))
        return {
            "machine": {"cores": os.cpu_count(), "load_average": os.getloadavg()},
            "broker": rig.broker,
            "records": records,
            "alone": alone,
            "shadowed": shadowed,
        }


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    ratios = [one["per_second"] / alone for one, alone in zip(found["shadowed"], found["alone"], strict=True)]
    table = Table(title=f"{found['machine']['cores']} cores for everything, {found['broker']}")
    for heading in ("what", "measured", "target"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    table.add_row("champion alone, transactions/s", f"{statistics.median(found['alone']):,.0f}", "")
    with_shadow = statistics.median(one["per_second"] for one in found["shadowed"])
    table.add_row("champion beside a shadow, transactions/s", f"{with_shadow:,.0f}", "")
    table.add_row("share, same round, median", f"{statistics.median(ratios):.2f}", f"{TARGET}")
    table.add_row("... each round", " ".join(f"{ratio:.2f}" for ratio in ratios), "")
    same = sum(one["same_bytes"] for one in found["shadowed"])
    rounds = f"{same} of {len(ratios)} rounds"
    table.add_row(f"the champion's {found['records']:,} decisions the same bytes", rounds, "all")
    behind = statistics.median(one["behind"] for one in found["shadowed"])
    table.add_row("shadow behind when the champion was done, transactions", f"{behind:,.0f}", "")
    late_s = statistics.median(one["caught_up_s"] for one in found["shadowed"])
    table.add_row("... until it had decided them all, s", f"{late_s:.1f}", "")
    Console().print(table)


def main() -> None:
    """Read the options, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: 3)")
    parser.add_argument("--records", type=int, default=100_000, help="transactions (default: 100000)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    found = run(options.rounds, options.records)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "shadow.json").write_text(json.dumps(found, indent=1) + "\n")
    show(found)


if __name__ == "__main__":
    main()
