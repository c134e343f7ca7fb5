"""What each command does, once its flags are settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from training.registry import Registry
from training.settings import load_settings
from training.store import import_release


def train_command(
    overrides: dict[str, Any],
    *,
    data: Path | None,
    held_out: Path | None,
    if_changed: bool,
    force: bool,
    out: Console,
) -> None:
    """Run `train`."""
    settings = load_settings(overrides)
    from training.data import load_transactions
    from training.publish import publish
    from training.train import fit, part, split, test_figures

    registry = Registry(settings.tracking_uri)
    transactions = load_transactions(data)
    parts = split(transactions, settings)
    with out.status("training") as status:
        fitted = fit(transactions, parts, settings, status.update)
        status.update("judging the test part")
        figures = test_figures(fitted, part(transactions, parts.test), settings)
        status.update("recording")
        release = publish(registry, fitted, transactions, parts, figures, settings)
        registry.challenge(release)
        registry.promote(release)
        status.update("importing")
        pair, _ = import_release(registry, release)
    if held_out is not None:
        rows = parts.test[transactions.time[parts.test].argsort(kind="stable")]
        transactions.to_frame(rows).to_parquet(held_out, index=False)
    out.print(f"release {release.number} promoted and imported as version {pair.version}")


def import_command(out: Console) -> None:
    """Run `import`."""
    settings = load_settings()
    registry = Registry(settings.tracking_uri)
    pair, imported = import_release(registry, registry.require_champion())
    done = "imported" if imported else "is in the store already"
    out.print(f"release {pair.release} {done} as version {pair.version}")
