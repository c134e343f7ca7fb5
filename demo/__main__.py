"""``python -m demo``: what ``make demo`` runs."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console

from demo.errors import DemoError, Interrupted
from demo.figures import Truth, assess, read_truth
from demo.ledger import Ledger
from demo.pipeline import ROOT, Links, Options, Pipeline, require_data
from demo.processes import Process
from demo.promotion import find_other_release, promote_under_traffic
from demo.screen import Screen
from demo.stream import StreamReader, Topics
from demo.summary import Summary

STEPS = 6
#: A stream that stands still this long will not finish by itself.
STALL_TIMEOUT_S = 60.0


def main() -> int:
    """Run the demo; return its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_on_signal)
    console = Console()
    options = Options.from_environment()
    try:
        require_data(options)
        run(options, console)
    except DemoError as error:
        console.print(f"[bold red]The demo failed.[/bold red] {error}", highlight=False, soft_wrap=True)
        return 1
    except Interrupted as interrupted:
        console.print("Interrupted; everything the demo started has been stopped.")
        return interrupted.exit_status
    return 0


def run(options: Options, console: Console) -> None:
    """Start every part, stream the held-out transactions, sum up, and stop every part."""
    folder = Path(os.environ.get("DEMO_FOLDER", ROOT / ".demo")) / datetime.now().strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    with ExitStack() as stack, uninterrupted_end():
        screen = Screen(console, STEPS + options.keep)
        pipeline = Pipeline(options, folder, stack, screen)
        pipeline.train()
        summary = stream(pipeline, stack, screen, topics_for(folder))
        summary.write(folder.parent / "summary.json")
        summary.show(console)
        check_accounts(summary.ledger, folder)
        check_accounts(summary.promotion.ledger, folder)
        if options.keep:
            keep_serving(console)


def check_accounts(ledger: Ledger, folder: Path) -> None:
    """Fail when a transaction has no outcome, or more than one.

    Raises
    ------
    DemoError
        With the counts.
    """
    if ledger.lost or ledger.duplicates or ledger.strangers:
        raise DemoError(
            f"The stream does not add up ({ledger.lost} lost, {ledger.duplicates} decided twice, "
            f"{ledger.strangers} of unknown source): look at the bridge's log.",
            folder / "bridge.log",
        )


@contextmanager
def uninterrupted_end() -> Iterator[None]:
    """Ignore a second Ctrl-C once the end has begun: it would leave processes behind."""
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def stream(pipeline: Pipeline, stack: ExitStack, screen: Screen, topics: Topics) -> Summary:
    """Start broker, service and bridge, replay, and read the decisions back."""
    broker = pipeline.start_broker()
    service = pipeline.start_service()
    metrics = pipeline.start_bridge(broker, service, topics)
    mlflow = pipeline.start_mlflow() if pipeline.options.keep else None
    truth = read_truth(pipeline.held_out)
    ledger = Ledger()
    reader = StreamReader(broker.address, topics, ledger)
    stack.callback(reader.close)
    with screen.step("Replay held-out transactions, read the decisions back") as step:
        replay = pipeline.start_replay(broker, topics)
        expected = min(len(truth), pipeline.options.limit)
        step.done(f"{expected:,} transactions")
        follow(reader, replay, ledger, truth, screen, expected)
    seconds = time.time() - min(ledger.produced_at_ms.values()) / 1000
    info: dict[str, Any] = httpx.get(f"{service}/info", timeout=10, trust_env=False).raise_for_status().json()
    quality = assess(list(ledger.decided.values()), truth)
    with screen.step("Promote another release under traffic, and go back") as step:
        other = find_other_release(pipeline, step)
        replay = pipeline.start_replay(broker, topics, endless=True)
        promotion = promote_under_traffic(pipeline, service, reader, replay, other, step)
        step.done(str(promotion))
    return Summary(info, broker, ledger, quality, seconds, Links(service, metrics, mlflow), promotion)


def follow(
    reader: StreamReader,
    replay: Process,
    ledger: Ledger,
    truth: dict[str, Truth],
    screen: Screen,
    expected: int,
) -> None:
    """Read until every transaction has its outcome, showing the counts as they grow.

    Raises
    ------
    DemoError
        If the replay fails or the stream stands still.
    """
    alarms = caught = frauds = 0
    moved = time.monotonic()
    with screen.live(expected) as live:
        while not ledger.is_complete(expected):
            if reader.read():
                moved = time.monotonic()
            for decided in ledger.settle():
                label = truth.get(decided.transaction_id or "")
                alarms += decided.is_alarm
                frauds += label is not None and label.is_fraud
                caught += label is not None and label.is_fraud and decided.is_alarm
            live.show(len(ledger.decided), alarms, caught, frauds)
            if replay.poll():
                replay.wait_done()  # raises with its last words
            if time.monotonic() - moved > STALL_TIMEOUT_S:
                raise DemoError(
                    f"The stream has stood still for {STALL_TIMEOUT_S:.0f} s with {ledger.lost} transactions "
                    "undecided: look at the logs of bridge and service.",
                    replay.log.parent,
                )
    replay.wait_done()


def topics_for(folder: Path) -> Topics:
    """Name topics after the run: a broker that was given may hold those of an earlier one."""
    return Topics(*(f"demo-{folder.name}.{name}" for name in ("transactions", "decisions", "dead-letter")))


def keep_serving(console: Console) -> None:
    """Wait for Ctrl-C or SIGTERM; both end a demo that is done."""
    console.print("Still serving. Ctrl-C stops everything.")
    try:
        signal.pause()
    except Interrupted:
        console.print("Stopping ...")


def end_on_signal(number: int, _frame: FrameType | None) -> None:
    """Leave through the clean-up of every open block."""
    raise Interrupted(number)


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m demo",
        description="Train, serve, stream and sum up, from nothing; what `make demo` runs.",
        epilog="Told by variables: DATA=file, KEEP=0 or 1, FRESH=1, DEMO_FOLDER=folder.",
    ).parse_args()
    sys.exit(main())
