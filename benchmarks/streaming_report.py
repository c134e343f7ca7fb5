"""Shows what `benchmarks.streaming` measured: a table and a plot."""

import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

# Stages of the bridge in the order in which a record meets them; they overlap.
STAGES = ("fetch", "inspect", "classify", "write", "send", "acknowledge", "offsets", "commit")


def medians(found: dict[str, Any]) -> tuple[float, float, float]:
    """Return the original's and the bridge's transactions per second, and their ratio; medians of rounds."""
    rates = [one["per_second"] for one in found["bridge"]]
    ratios = [bridge / original for bridge, original in zip(rates, found["original_per_second"], strict=True)]
    return (
        statistics.median(found["original_per_second"]),
        statistics.median(rates),
        statistics.median(ratios),
    )


def print_table(found: dict[str, Any]) -> None:
    """Print figures, stages and processor time."""
    console = Console()
    original, bridge, ratio = medians(found)
    latency = found["steady"]
    table = Table(
        title=f"{found['machine']['cores']} cores for everything: {found['service']}, {found['broker']}"
    )
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("target", justify="right")
    table.add_row("original consumer, transactions/s", f"{original:,.0f}", "")
    table.add_row("one bridge, topic to topic, transactions/s", f"{bridge:,.0f}", "10,000")
    table.add_row("ratio, same round", f"{ratio:.1f}x", "30x")
    ratios = [
        one["per_second"] / plain["per_second"]
        for one, plain in zip(found["reasons"], found["bridge"], strict=True)
    ]
    table.add_row(
        "with the reasons of alarms, share of that speed", f"{statistics.median(ratios):.2f}", "0.8"
    )
    table.add_row("two bridges, transactions/s", f"{found['two_bridges']['per_second']:,.0f}", "")
    shares = " / ".join(f"{share:,.0f}" for share in found["two_bridges"]["shares"])
    table.add_row("two bridges, transactions each", shares, "")
    table.add_row(f"at {latency['rate']:.0f}/s, produced to readable, p50", f"{latency['p50_ms']:.1f} ms", "")
    table.add_row(
        f"at {latency['rate']:.0f}/s, produced to readable, p99", f"{latency['p99_ms']:.1f} ms", "50 ms"
    )
    if "soak" in found:
        soak = found["soak"]
        table.add_row(
            f"memory over {soak['seconds']:.0f} s at {soak['rate']:.0f}/s",
            f"{soak['first_mb']:.0f} to {soak['last_mb']:.0f} MB",
            "flat",
        )
    console.print(table)
    console.print(_time_table(found))


def print_round(one: dict[str, Any]) -> None:
    """Print the latency of one version in one round, and the cores it took."""
    cores = ", ".join(f"{name} {value:.2f}" for name, value in one["cpu_cores"].items())
    Console().print(
        f"round {one['round']}, {one['version']:>6}: p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms; "
        f"cores: {cores}",
        highlight=False,
    )


def print_ratios(rounds: list[dict[str, Any]]) -> None:
    """Print how this version compares with the one before, round by round, and the medians."""
    pairs = list(zip(rounds[::2], rounds[1::2], strict=True))
    for figure in ("p50_ms", "p99_ms"):
        ratios = [this[figure] / before[figure] for before, this in pairs]
        values = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        Console().print(
            f"{figure[:3]} against the version before: {values}; median {statistics.median(ratios):.2f}",
            highlight=False,
        )


def _time_table(found: dict[str, Any]) -> Table:
    run = max(found["bridge"], key=lambda one: one["per_second"])
    table = Table(title="where the time goes, microseconds a transaction, fastest round")
    table.add_column("stage of the bridge (they overlap)")
    table.add_column("elapsed", justify="right")
    table.add_column("process")
    table.add_column("processor", justify="right")
    per = 1e6 / found["records"]
    processes = list(run["cpu_s"].items())
    for place, stage in enumerate(STAGES):
        name, seconds = processes[place] if place < len(processes) else ("", None)
        cpu = "" if seconds is None else f"{seconds * per:.1f}"
        table.add_row(stage, f"{run['stages_s'].get(stage, 0) * per:.1f}", name, cpu)
    return table


def write_plot(found: dict[str, Any], path: Path) -> None:
    """Draw throughput, latency and stages side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (rates, curve, stages) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    original, bridge, ratio = medians(found)
    bars = rates.bar(
        ["original\nconsumer", "one\nbridge", "two\nbridges"],
        [original, bridge, found["two_bridges"]["per_second"]],
    )
    rates.bar_label(bars, fmt="{:,.0f}")
    rates.set_ylabel("transactions per second")
    rates.set_title(f"topic to topic ({ratio:.0f}x)")
    latency = found["steady"]
    points = latency["curve_ms"]
    curve.plot(points, [100 * (place + 0.1) / len(points) for place in range(len(points))])
    curve.axvline(latency["p99_ms"], color="0.6", linestyle="--")
    curve.annotate(f"p99 {latency['p99_ms']:.0f} ms ", (latency["p99_ms"], 8), horizontalalignment="right")
    curve.set_xlim(0)
    curve.set_xlabel("ms from produced to readable")
    curve.set_ylabel("% of transactions")
    curve.set_title(f"latency at {latency['rate']:.0f} per second")
    run = max(found["bridge"], key=lambda one: one["per_second"])
    values = [1e6 * run["stages_s"].get(stage, 0) / found["records"] for stage in STAGES]
    stages.barh(STAGES[::-1], values[::-1])
    stages.set_xlabel("µs elapsed per transaction; stages overlap")
    stages.set_title("where the time goes in the bridge")
    figure.savefig(path, dpi=130)
    plt.close(figure)
