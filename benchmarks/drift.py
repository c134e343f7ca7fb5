"""Does the drift detector see what it must, and nothing else? ``python -m benchmarks.drift`` tells.

Streams of 142,000 transactions a day are simulated with the daily rhythm of the ULB set, and compared with
the reference of another simulated set, made as ``training train`` makes it.

- quiet months: every alarm is a false one; all 30 features, windows of every size;
- a shift of each component by half a standard deviation at every half hour of two days: transactions until
  the alarm, which has to come from the shifted component;
- a ramp to the same shift over ten days: how much of it has passed at the alarm;
- cost: processor time that drift takes of the monitor for a transaction with its 33 series, what it keeps in
  the database included, against that of the stream (bridge, service and broker, measured in the same run).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.streaming import drain
from benchmarks.streaming_rig import ROOT, open_rig
from streaming.monitor.drift.detector import CLOCK, FIRST_WINDOW, STEP, DriftDetector
from streaming.monitor.drift.reference import Reference
from streaming.monitor.drift.watch import DriftWatch
from streaming.monitor.observations import APPROVE, CHAMPION, Payment, ReleaseDecision
from streaming.monitor.promises import Promise
from streaming.settings.drift import DriftSettings
from training.data.labelled import labelled_rows
from training.data.simulate import ROWS, simulate
from training.data.transactions import FEATURES, from_frame
from training.evaluation.reference import describe_reference

RESULTS = ROOT / "benchmarks" / "results"
COMPONENTS = FEATURES[1:29]
DAY = ROWS // 2  # transactions; a simulated set is two days
SETS_A_MONTH = 15
SHIFT = 0.5
RAMP_DAYS = 10
VALIDATION_SHARE = 0.2
# Transactions in a transaction of the database when the monitor reads a stream at its full speed.
COMMIT = 5000
STARTS = 96  # one for every half hour of two days

Floats = NDArray[np.float64]


def make_reference(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the document that a release trained on `frame` carries, as far as its features go."""
    data = from_frame(frame, "simulated")
    rows = np.flatnonzero(np.random.default_rng(7).random(len(frame)) < VALIDATION_SHARE)
    part = labelled_rows(data, rows)
    # As many scores as a release has, for the cost; they are not judged.
    stand_ins = {"neural_net": frame["V12"].to_numpy()[rows], "xgboost": frame["V14"].to_numpy()[rows]}
    return describe_reference(part, stand_ins, frame["V17"].to_numpy()[rows], VALIDATION_SHARE)


def quiet_month(reference: Reference, month: int) -> dict[str, Any]:
    """Return the false alarms of a month."""
    detector = DriftDetector(reference, DriftSettings())
    false, windows = [], 0
    waiting = {name: np.empty(0) for name in FEATURES}
    for number in track(range(SETS_A_MONTH), description=f"quiet month {month + 1}"):
        frame = simulate(ROWS, seed=10_000 + 100 * month + number)
        for name in FEATURES:
            waiting[name] = np.concatenate([waiting[name], frame[name].to_numpy()])
        whole = len(waiting[CLOCK]) // STEP
        columns = {name: values[: whole * STEP].tolist() for name, values in waiting.items()}
        waiting = {name: values[whole * STEP :] for name, values in waiting.items()}
        for start in range(0, whole * STEP, STEP):
            for name, values in columns.items():
                detector.update(name, values[start : start + STEP])
            new = _closed_now(detector)
            windows += len(new)
            false += [(one.series, one.rows, one.divergence, one.threshold) for one in new if one.is_drifted]
    return {"false_alarms": false, "windows": windows, "transactions": SETS_A_MONTH * ROWS}


def _closed_now(detector: DriftDetector) -> list[Any]:
    found = detector.findings()
    newest = max((one.at for one in found), default=0)
    return [one for one in found if one.at == newest]


def alarm_after(detector: DriftDetector, series: str, pieces: Iterator[Floats], piece: int) -> int | None:
    """Return the transactions until the first window with drift in a series; None when there is none."""
    passed, first = 0, _seen(detector, series)
    for values in pieces:
        detector.update(series, values.tolist())
        passed += len(values)
        if any(one.series == series and one.at > first for one in detector.alarms()):
            return passed
        assert len(values) <= piece
    return None


def _seen(detector: DriftDetector, series: str) -> int:
    return int(detector.state()[series]["seen"])


def single(document: dict[str, Any], series: str) -> Reference:
    """Return a reference whose test is as strict as with all series, but watches one."""
    reference = Reference.from_document(document)
    rest = {name: reference.series[CLOCK] for name in reference.series if name != series}
    return Reference(reference.rows, {series: reference.series[series], **rest})


def sudden(document: dict[str, Any], series: str, values: Floats, spread: float) -> list[int | None]:
    """Return the delays of the alarm for a shift at each half hour, transactions."""
    reference = single(document, series)
    delays = []
    before = 8 * FIRST_WINDOW
    for start in np.linspace(before, before + ROWS, STARTS, endpoint=False, dtype=int):
        detector = DriftDetector(reference, DriftSettings())
        # Windows begin where the detector does, so the change falls anywhere within them.
        quiet = before - start % FIRST_WINDOW
        detector.update(series, np.take(values, range(start - quiet, start), mode="wrap").tolist())
        shifted = (
            np.take(values, range(at, at + 250), mode="wrap") + SHIFT * spread
            for at in range(start, start + 4 * 40_000, 250)
        )
        delays.append(alarm_after(detector, series, shifted, 250))
    return delays


def ramp(document: dict[str, Any], series: str, days: Sequence[Floats], spread: float) -> float | None:
    """Return the share of the ramp that has passed at the alarm."""
    detector = DriftDetector(single(document, series), DriftSettings())
    detector.update(series, days[0].tolist())
    values = np.concatenate(days[1:])[: RAMP_DAYS * DAY]
    slope = SHIFT * spread * np.arange(len(values)) / len(values)
    pieces = ((values + slope)[at : at + FIRST_WINDOW] for at in range(0, len(values), FIRST_WINDOW))
    passed = alarm_after(detector, series, pieces, FIRST_WINDOW)
    return None if passed is None else passed / len(values)


def drift_cost(document: dict[str, Any], frame: pd.DataFrame) -> float:
    """Return the processor time that drift costs the monitor, microseconds a transaction; least of three."""
    watch = DriftWatch(DriftSettings(), {})
    watch.follow(CHAMPION, "1", Promise(reference=document))
    values = frame[list(FEATURES)].to_numpy().tolist()
    scores = frame[["V12", "V14", "V17"]].to_numpy().tolist()
    payments = [Payment(0, at, 0, row[-1], None, tuple(row)) for at, row in enumerate(values)]
    decisions = [
        ReleaseDecision(CHAMPION, "1", 0, at, APPROVE, None, tuple(row)) for at, row in enumerate(scores)
    ]
    spent = []
    for _ in range(3):
        begun = time.process_time()
        for at in range(0, len(frame), COMMIT):
            watch.update(payments[at : at + COMMIT], decisions[at : at + COMMIT])
        spent.append(time.process_time() - begun)
    return 1e6 * min(spent) / len(frame)


def stream_cost(records: int, classify_url: str | None) -> dict[str, float]:
    """Return the processor time of the stream for a transaction, microseconds, and its speed."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        open_rig(Path(folder), classify_url) as rig,
    ):
        run = drain(rig, records, 1)
    return {"per_second": run["per_second"], "us": 1e6 * sum(run["cpu_s"].values()) / records}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; return the document that is written."""
    document = make_reference(simulate(ROWS, seed=4))
    reference = Reference.from_document(document)
    months = [quiet_month(reference, month) for month in range(options.months)]
    sets = [simulate(ROWS, seed=20_000 + number) for number in range(7)]
    chosen = list(dict.fromkeys(("V14", *options.components)))
    spreads = {name: float(sets[0][name].std()) for name in chosen}
    names = track(chosen, description="shifts and ramps")
    found: dict[str, Any] = {"months": months, "sudden": {}, "ramp": {}}
    for name in names:
        columns = [frame[name].to_numpy() for frame in sets]
        found["sudden"][name] = sudden(document, name, columns[0], spreads[name])
        found["ramp"][name] = ramp(document, name, columns, spreads[name])
    found["drift_us"] = drift_cost(document, sets[0].head(20 * COMMIT))
    found["stream"] = None if options.no_stream else stream_cost(options.records, options.classify_url)
    return found


def print_table(found: dict[str, Any]) -> None:
    """Print the figures beside their targets."""
    table = Table(title="the drift detector on simulated streams")
    for heading in ("what", "measured", "target"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    months = found["months"]
    alarms = sum(len(month["false_alarms"]) for month in months)
    windows = sum(month["windows"] for month in months)
    table.add_row(f"false alarms in {len(months)} months, {windows:,} windows", str(alarms), "1 a month")
    delays = _known(found["sudden"]["V14"])
    table.add_row(f"V14 by half a deviation, transactions, slowest of {STARTS}", _slowest(delays), "5,000")
    within = sum(delay <= 5000 for delay in delays)
    table.add_row("the same, median; starts within 5,000", f"{statistics.median(delays):,.0f}; {within}", "")
    quick = [name for name, of in found["sudden"].items() if max(_known(of)) <= 5000]
    count = f"{len(quick)} of {len(found['sudden'])}"
    table.add_row("components found within 5,000 at every hour", count, "")
    for name in found["sudden"]:
        if name not in quick:
            table.add_row(
                f"  {name}, which follows the hour, slowest", _slowest(_known(found["sudden"][name])), ""
            )
    table.add_row("ramp of V14 over 10 days, share passed", f"{found['ramp']['V14']:.2f}", "0.50")
    ramps = [share or 9.0 for share in found["ramp"].values()]
    table.add_row("components found before half of it", f"{sum(r < 0.5 for r in ramps)} of {len(ramps)}", "")
    table.add_row("drift, 33 series, µs a transaction", f"{found['drift_us']:.1f}", "")
    if found["stream"] is not None:
        share = found["drift_us"] / found["stream"]["us"]
        table.add_row("stream, µs of processor a transaction", f"{found['stream']['us']:.0f}", "")
        table.add_row("share of the stream", f"{share:.1%}", "3 %")
    Console().print(table)


def _known(delays: list[int | None]) -> list[float]:
    return [float("inf") if delay is None else delay for delay in delays]


def _slowest(delays: list[float]) -> str:
    return "never" if max(delays) == float("inf") else f"{max(delays):,.0f}"


def main() -> None:
    """Read the options, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--months", type=int, default=3, help="quiet months (default: 3)")
    parser.add_argument(
        "--components",
        nargs="+",
        default=list(COMPONENTS),
        choices=COMPONENTS,
        metavar="V",
        help="to shift beside V14 (default: all 28)",
    )
    parser.add_argument(
        "--records", type=int, default=50_000, help="transactions of the stream (default: 50000)"
    )
    parser.add_argument("--classify-url", help="a running service (default: start one)")
    parser.add_argument("--no-stream", action="store_true", help="leave the stream's own cost out")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    found = run(options)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "drift.json").write_text(json.dumps(found, indent=1) + "\n")
    print_table(found)
    print(f"written to {options.output / 'drift.json'}")


if __name__ == "__main__":
    main()
