"""`score`: a file, row for row, with one release."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from training.console import open_progress
from training.registry.releases import Registry
from training.settings.load import load_settings
from training.settings.paths import require_path


def score_command(overrides: Mapping[str, Any], out: Console) -> None:
    """Score a file with the champion, or with the release asked for."""
    from training.data.transactions import count_rows
    from training.scoring.scorer import ReleaseScorer, score_file

    settings = load_settings(overrides)
    if settings.score.engine == "spark":
        from training.commands.score_spark import score_with_spark

        score_with_spark(settings, out)
        return
    data = Path(require_path(settings.score.data, "--data"))
    output = Path(require_path(settings.score.output, "--output"))
    total = count_rows(data)  # before the registry: a wrong path is said at once
    registry = Registry(settings.tracking_uri)
    number = settings.score.release
    release = registry.release(number) if number else registry.require_champion()
    with tempfile.TemporaryDirectory() as folder:
        scorer = ReleaseScorer(registry.fetch(release, Path(folder)), threads=settings.threads)
    with open_progress(out) as progress:
        task = progress.add_task(f"release {release.number}", total=total)
        rows = score_file(scorer, data, output, lambda done: progress.advance(task, done), settings.limits)
        seconds = progress.tasks[0].elapsed or 1e-9
    out.print(
        f"{rows:,} transactions scored by release {release.number} "
        f"in {seconds:.1f} s ({rows / seconds:,.0f}/s): {output}",
        soft_wrap=True,
    )
