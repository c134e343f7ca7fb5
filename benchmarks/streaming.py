"""How fast is the bridge? ``python -m benchmarks.streaming`` prints a table and writes JSON and a plot.

Everything runs on this one machine: broker, service, bridge, load generator and reader.

- throughput: a topic filled beforehand is drained; decisions per second by their own times;
- the consumer this project replaces on the same service, in interleaved rounds of the same run;
- latency at a steady rate, from produced to readable by a `read_committed` reader;
- the same with the reasons of every alarm on its record, `service.reasons: alarms`;
- where the time goes: seconds per stage inside the bridge, processor time per process;
- with ``--soak SECONDS``: whether the bridge's memory stays flat;
- with ``--before FOLDER``, which holds another version: nothing but the latency of both, in turn. A shared
  machine can have twice the speed a minute later, so that only rounds side by side tell two bridges apart.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.streaming_report import print_ratios, print_round, print_table, write_plot
from benchmarks.streaming_rig import (
    ROOT,
    Reader,
    Rig,
    cpu_seconds,
    decided_per_second,
    open_rig,
    read_all,
    wait_until,
)

RESULTS = ROOT / "benchmarks" / "results"


def measure_original(rig: Rig, topic: str, seconds: float) -> float:
    """Return messages per second of the consumer that makes one blocking call per message."""
    command = [sys.executable, "-m", "benchmarks.streaming_original", rig.servers, f"{topic}.in", rig.url]
    done = subprocess.run([*command, str(seconds)], capture_output=True, text=True, check=True, cwd=ROOT)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if not found["decided"]:
        raise SystemExit(f"the original consumer decided nothing: {done.stdout.strip()[-500:]}")
    return float(found["decided"] / found["seconds"])


def drain(rig: Rig, records: int, bridges: int, reasons: str = "none") -> dict[str, Any]:
    """Fill a topic, start bridges, and see how fast they empty it."""
    topic = rig.topic()
    rig.replay(topic, records, 0)
    running = [rig.bridge(topic, name, reasons) for name in "abcdefgh"[:bridges]]
    before = _cpu(rig, [])
    for bridge in running:
        bridge.process.start()
    wait_until(lambda: sum(bridge.decided() for bridge in running) >= records, 600)
    spent = {name: value - before.get(name, 0) for name, value in _cpu(rig, running).items()}
    shares = [bridge.decided() for bridge in running]
    stages = running[0].stages()
    for bridge in running:
        bridge.process.stop()
    count, rate = decided_per_second(rig.servers, topic)
    assert count == records, f"{count} decisions for {records} transactions"
    return {"per_second": rate, "shares": shares, "stages_s": stages, "cpu_s": spent, "topic": topic}


def _cpu(rig: Rig, bridges: list[Any]) -> dict[str, float]:
    return {
        "bridge": sum(cpu_seconds(bridge.process.pid) for bridge in bridges),
        "service": cpu_seconds(rig.service_pid),
        "broker": cpu_seconds(rig.broker_pid),
    }


def steady(
    rig: Rig, rate: float, seconds: float, warm_up_s: float, folder: Path | None = None
) -> dict[str, Any]:
    """Send at a rate and see when each decision can be read, by this version or the one in `folder`.

    Before that the same for `warm_up_s`: a broker's JVM compiles for half a minute what this load needs.
    """
    early = int(rate * warm_up_s)
    topic = rig.topic()
    bridge = rig.bridge(topic) if folder is None else rig.other_bridge(folder, topic)
    bridge.process.start()
    with Reader(rig.servers, f"{topic}.out") as reader:
        rig.replay(topic, early, rate)
        wait_until(lambda: len(reader.arrivals) >= early, 60)
        before = _cpu(rig, [bridge])
        replay = rig.replay(topic, int(rate * seconds), rate, wait=False)
        replay.wait_done()
        after = _cpu(rig, [bridge])
        wait_until(lambda: len(reader.arrivals) >= early + int(rate * seconds), 60)
    said = replay.last_line()
    bridge.process.stop()
    latencies = _latencies(rig, topic, reader, early)
    quantiles = statistics.quantiles(latencies, n=1000)
    return {
        "rate": rate,
        "said": said,
        "p50_ms": quantiles[499],
        "p99_ms": quantiles[989],
        "p999_ms": quantiles[998],
        "max_ms": max(latencies),
        "cpu_cores": {name: (after[name] - before[name]) / seconds for name in after},
        "curve_ms": quantiles[::10],
    }


def _latencies(rig: Rig, topic: str, reader: Reader, skip: int) -> list[float]:
    produced = {
        (record.partition, record.offset): record.timestamp / 1000
        for record in read_all(rig.servers, f"{topic}.in")
    }
    late = sorted(produced, key=lambda source: produced[source])[skip:]
    return [1000 * (reader.arrivals[source] - produced[source]) for source in late]


def soak(rig: Rig, rate: float, seconds: float) -> dict[str, Any]:
    """Run at a rate and watch the bridge's memory."""
    topic = rig.topic()
    bridge = rig.bridge(topic)
    bridge.process.start()
    replay = rig.replay(topic, int(rate * seconds), rate, wait=False)
    process, samples = psutil.Process(bridge.process.pid), []
    begun = time.monotonic()
    while replay.poll() is None:
        samples.append((time.monotonic() - begun, process.memory_info().rss / 2**20))
        time.sleep(1.0)
    wait_until(lambda: bridge.decided() >= int(rate * seconds), 120)
    bridge.process.stop()
    settled = [memory for moment, memory in samples if moment > min(60.0, seconds / 4)]
    return {
        "seconds": seconds,
        "rate": rate,
        "first_mb": settled[0],
        "last_mb": settled[-1],
        "samples": samples,
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the latency of the version before and of this one, in turn; return what is written."""
    rounds: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as place,
        open_rig(Path(place), options.classify_url) as rig,
    ):
        for number in range(options.rounds):
            for name, folder in (("before", options.before.resolve()), ("this", None)):
                # The broker is warm after the first.
                warm_up_s = options.warm_up if not rounds else options.warm_up / 3
                found = steady(rig, options.rate, options.seconds, warm_up_s, folder)
                rounds.append({"round": number + 1, "version": name, **found})
                print_round(rounds[-1])
        return {"broker": rig.broker, "service": rig.service, "rounds": rounds}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; return the document that is written."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        open_rig(Path(folder), options.classify_url) as rig,
    ):
        source = rig.topic()
        rig.replay(source, 20_000, 0)
        originals, bridges, reasons = [], [], []
        for _ in range(options.rounds):
            originals.append(measure_original(rig, source, options.original_seconds))
            bridges.append(drain(rig, options.records, 1))
            reasons.append(drain(rig, options.records, 1, "alarms"))
        found: dict[str, Any] = {
            "machine": {"cores": psutil.cpu_count(), "load_average": psutil.getloadavg()},
            "broker": rig.broker,
            "service": rig.service,
            "records": options.records,
            "original_per_second": originals,
            "bridge": bridges,
            "reasons": reasons,
            "two_bridges": drain(rig, options.records, 2),
            "steady": steady(rig, options.rate, options.seconds, options.warm_up),
        }
        if options.soak:
            found["soak"] = soak(rig, options.rate, options.soak)
        return found


def main() -> None:
    """Read the options, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--records", type=int, default=100_000, help="transactions to drain (default: 100000)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: 3)")
    parser.add_argument("--original-seconds", type=float, default=8.0, help="per round (default: 8)")
    parser.add_argument("--rate", type=float, default=1000.0, help="steady rate per second (default: 1000)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the steady rate (default: 30)")
    parser.add_argument(
        "--warm-up", type=float, default=30.0, help="seconds of the same rate before (default: 30)"
    )
    parser.add_argument(
        "--soak", type=float, default=0.0, help="seconds to watch the memory (default: 0, not)"
    )
    parser.add_argument("--classify-url", help="a running service (default: start one)")
    parser.add_argument("--before", type=Path, help="checkout of another version: compare latency alone")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for JSON and plot")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.before:
        found = compare(options)
        (options.output / "streaming-before.json").write_text(json.dumps(found, indent=1) + "\n")
        print_ratios(found["rounds"])
        return
    found = run(options)
    (options.output / "streaming.json").write_text(json.dumps(found, indent=1) + "\n")
    write_plot(found, options.output / "streaming.png")
    print_table(found)
    print(f"written to {options.output / 'streaming.json'} and {options.output / 'streaming.png'}")


if __name__ == "__main__":
    main()
