"""`releases`: what is registered."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from training.registry.releases import Registry, Release
from training.settings.load import load_settings


def releases_command(out: Console) -> None:
    """List the releases, newest first."""
    registry = Registry(load_settings().tracking_uri)
    table = Table(
        title=f"Releases in {registry.shown_uri}", title_justify="left", box=SIMPLE, show_edge=False
    )
    for column in ("release", "alias", "trained (UTC)", "AP", "gate", "data"):
        table.add_column(column, overflow="fold")  # a narrow terminal shows all of it all the same
    for release in reversed(registry.releases()):
        table.add_row(*_release_cells(release))
    out.print(table)


def _release_cells(release: Release) -> tuple[str, ...]:
    created = datetime.fromtimestamp(release.created_ms / 1000, UTC)
    gate = "forced" if release.tags.get("forced") else release.tags.get("gate", "not asked").split(":")[0]
    return (
        release.number,
        ", ".join(release.aliases),
        f"{created:%Y-%m-%d %H:%M}",
        release.tags.get("average_precision", "").partition(" ")[0],
        gate,
        f"{release.tags.get('data', '')} ({release.tags.get('protocol', '')})",
    )
