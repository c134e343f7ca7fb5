"""What the demo shows while it works: steps with their result, and a live line of the stream."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

#: Without a terminal a line at this interval says that the stream moves.
PLAIN_LINE_S = 5.0


class Step:
    """A step that is under way."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, note="")
        self.note = ""

    def say(self, note: str) -> None:
        """Show what the step is at now."""
        self._progress.update(self._task, note=f"[dim]{note[:80]}[/dim]")

    def done(self, note: str) -> None:
        """Say what came of it."""
        self.note = note


class Screen:
    """Prints to the terminal, or plain lines where there is none."""

    def __init__(self, console: Console, steps: int) -> None:
        self.console = console
        self._steps = steps
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while the block runs, then a line with its time and result."""
        self._number += 1
        label = f"[bold]{self._number}/{self._steps}[/bold] {title}"
        started = time.monotonic()
        columns = (TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
        with self._progress(*columns) as progress:
            step = Step(progress, label)
            yield step
        seconds = time.monotonic() - started
        self.console.print(f"{label} [green]ok[/green] {seconds:.1f} s", highlight=False)
        self.console.print(f"    [dim]{step.note}[/dim]", highlight=False, soft_wrap=True)

    @contextmanager
    def live(self, total: int) -> Iterator["LiveLine"]:
        """Show the moving stream while the block runs."""
        columns = (BarColumn(bar_width=24), TextColumn("{task.fields[note]}"))
        with self._progress(*columns) as progress:
            yield LiveLine(progress, total)

    def _progress(self, *columns: ProgressColumn) -> Progress:
        return Progress(
            *columns,
            console=self.console,
            transient=True,
            refresh_per_second=5,
            disable=not self.console.is_terminal,
        )


class LiveLine:
    """The line that moves with the stream: decided, per second, alarms, caught frauds."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._task = progress.add_task("", total=total, note="")
        self._started = self._printed = time.monotonic()

    def show(self, decided: int, alarms: int, caught: int, frauds: int) -> None:
        """Show the counts of now.

        Parameters
        ----------
        decided, alarms : int
            Decisions read back, and those that raise an alarm.
        caught, frauds : int
            Frauds with an alarm, out of those decided.
        """
        now = time.monotonic()
        rate = decided / max(now - self._started, 1e-9)
        stream = f"{decided:,}/{self._total:,} decided  {rate:,.0f}/s"
        note = f"{stream}  {alarms} alarms  {caught}/{frauds} frauds caught"
        self._progress.update(self._task, completed=decided, note=note)
        if not self._progress.console.is_terminal and now - self._printed > PLAIN_LINE_S:
            self._printed = now
            self._progress.console.print(f"    {note}", highlight=False)
