"""`recalibrate`: the champion's models with calibration and thresholds of recent rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from training.commands.promotion import import_for_serving, promote_if_passed, run_gate_step
from training.console import ProgressConsole
from training.registry.releases import Registry
from training.settings.load import load_settings
from training.settings.paths import require_path


def recalibrate_command(overrides: Mapping[str, Any], out: Console) -> None:
    """Register the champion anew with what decides refitted; promote it if the gate agrees."""
    from training.data.source import read_data
    from training.registry.recalibration import recalibrate

    settings, console = load_settings(overrides), ProgressConsole(out)
    require_path(settings.data, "--data")
    registry = Registry(settings.tracking_uri)
    champion = registry.require_champion()
    data = read_data(settings, console)
    with console.step("Recalibrate") as report:
        challenger = recalibrate(registry, champion, data, settings)
        registry.set_challenger(challenger.release)
        report(f"release {challenger.release.number}, models of release {champion.number}")
    run_gate_step(registry, challenger, champion, console)
    if settings.challenge:
        out.print(f"release {challenger.release.number} is challenger; nothing is promoted")
        return
    promote_if_passed(registry, challenger.release, lambda: challenger, settings.gate, console)
    import_for_serving(registry, challenger.release, console)
