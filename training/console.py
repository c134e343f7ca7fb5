"""What a command shows while it works: a live line on a terminal, one line per finished step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Report = Callable[[str], None]


class ProgressConsole:
    """Steps of one command."""

    def __init__(self, rich: Console) -> None:
        self.rich = rich

    @contextmanager
    def step(self, title: str) -> Iterator[Report]:
        """Show `title` with what is reported while the step runs; leave the last report and the time."""
        started = time.perf_counter()
        last = [""]
        with self.rich.status(title) as status:

            def report(text: str) -> None:
                last[0] = text
                status.update(f"{title}  [dim]{text}[/dim]")

            yield report
        seconds = time.perf_counter() - started
        mark = "✓" if self.rich.encoding.startswith("utf") else "*"
        self.rich.print(
            f"[green]{mark}[/green] {title:<28} [dim]{last[0]:<57}{seconds:6.1f} s[/dim]", soft_wrap=True
        )


def open_progress(console: Console) -> Progress:
    """Return a progress bar with speed and remaining time; it shows on a terminal only."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)
