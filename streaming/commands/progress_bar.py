"""A progress line on a terminal; nothing elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def show_count(text: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a count while the block runs.

    Parameters
    ----------
    text : str
    total : int, optional
        What the count goes to, where that is known.

    Yields
    ------
    callable
        Takes the count so far.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, refresh_per_second=4, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(text, total=total)

        def show(count: int) -> None:
            progress.update(task, completed=count)

        yield show
