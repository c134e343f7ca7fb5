"""``python -m demo.loop``: what ``make loop`` runs."""

import os
import signal
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from rich.console import Console

from demo.__main__ import end_on_signal, uninterrupted_end
from demo.errors import DemoError, Interrupted
from demo.loop.data import simulate
from demo.loop.parts import Parts
from demo.loop.picture import draw
from demo.loop.plan import Plan
from demo.loop.story import (
    Story,
    begin,
    offer_worse,
    promote,
    retrain,
    run_shadow,
    stream_on,
    stream_until_alarm,
)
from demo.loop.verdict import judge, show, write
from demo.pipeline import ROOT
from demo.screen import Screen

STEPS = 9


def main() -> int:
    """Run the circle; return 0 when everything that must hold does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_on_signal)
    console = Console()
    try:
        return run(Plan(), console)
    except DemoError as error:
        console.print(f"[bold red]The loop failed.[/bold red] {error}", highlight=False, soft_wrap=True)
        return 1
    except Interrupted as interrupted:
        console.print("Interrupted; everything the loop started has been stopped.")
        return interrupted.exit_status


def run(plan: Plan, console: Console) -> int:
    """Start every part, go round once, judge, and stop every part."""
    begun = time.monotonic()
    home = Path(os.environ.get("DEMO_FOLDER", ROOT / ".demo"))
    folder = home / f"loop-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    with ExitStack() as stack, uninterrupted_end():
        story = go_round(Parts(plan, folder, stack), stack, Screen(console, STEPS))
        checks = judge(story)
        seconds = time.monotonic() - begun
        show(story, checks, seconds, console)
        write(story, checks, seconds, home / "loop.json")
        draw(story, home / "loop.png")
        console.print(f"picture: {home / 'loop.png'}; figures: {home / 'loop.json'}", soft_wrap=True)
    return 0 if all(check.holds for check in checks) else 1


def go_round(parts: Parts, stack: ExitStack, screen: Screen) -> Story:
    """Do every step of the circle once."""
    with screen.step("Simulate what is known, and a stream whose fraud pattern changes") as step:
        data = simulate(parts, parts.plan)
        step.done(
            f"{parts.plan.day_rows:,} transactions for two days, {parts.plan.files} times that to stream"
        )
    with screen.step("Train the first release, promote and import it; start the broker") as step:
        training = parts.train(data.training, "train")
        broker = parts.start_broker()
        training.wait_done(on_poll=lambda: step.say(training.last_line()))
        step.done(training.last_line())
    story = begin(parts, data, broker, stack, screen)
    replay, labels = stream_until_alarm(story, screen)
    offer_worse(story, screen)
    retrain(story, screen)
    run_shadow(story, screen)
    promote(story, screen)
    stream_on(story, screen, replay, labels)
    return story


if __name__ == "__main__":
    sys.exit(main())
