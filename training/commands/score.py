"""`score`: a file, row for row, with one release."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from training.registry.releases import Registry
from training.settings.load import load_settings
from training.settings.paths import require_path


def score_command(overrides: Mapping[str, Any], out: Console) -> None:
    """Score a file with the champion, or with the release asked for."""
    from training.data.transactions import count_rows
    from training.scoring.scorer import ReleaseScorer, score_file

    settings = load_settings(overrides)
    data, output = (
        require_path(settings.score.data, "--data"),
        require_path(settings.score.output, "--output"),
    )
    total = count_rows(data)  # before the registry: a wrong path is said at once
    registry = Registry(settings.tracking_uri)
    number = settings.score.release
    release = registry.release(number) if number else registry.require_champion()
    with tempfile.TemporaryDirectory() as folder:
        scorer = ReleaseScorer(registry.fetch(release, Path(folder)), threads=settings.threads)
    with _progress(out) as progress:
        task = progress.add_task(f"release {release.number}", total=total)
        rows = score_file(scorer, data, output, lambda done: progress.advance(task, done))
        seconds = progress.tasks[0].elapsed or 1e-9
    out.print(
        f"{rows:,} transactions scored by release {release.number} "
        f"in {seconds:.1f} s ({rows / seconds:,.0f}/s): {output}",
        soft_wrap=True,
    )


def _progress(out: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=out, disable=not out.is_terminal)
