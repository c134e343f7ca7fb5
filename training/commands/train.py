"""`train`: fit both models, record them, and promote them if the gate agrees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from training.commands.promotion import import_for_serving, promote_if_passed, run_gate_step
from training.console import ProgressConsole
from training.registry.releases import Registry, Release
from training.settings.load import Settings, load_settings

if TYPE_CHECKING:
    from training.data.transactions import Transactions
    from training.models.training import TrainingResult


def train_command(overrides: Mapping[str, Any], out: Console) -> None:
    """Fit, record, judge, promote and import."""
    from training.data.source import read_data, write_held_out

    settings = load_settings(overrides)
    console = ProgressConsole(out)
    if settings.if_none and _import_champion(settings, console):
        return
    data = read_data(settings, console)
    with console.step("Open the registry") as report:
        registry = Registry(settings.tracking_uri)
        champion = registry.champion()
        report(f"champion: release {champion.number}" if champion else "no champion yet")
    if settings.held_out is not None:
        write_held_out(data, settings, settings.held_out)
    if settings.if_changed and champion is not None and _is_unchanged(champion, data, settings):
        out.print(f"release {champion.number} was trained from the same data and settings: nothing to do")
        import_for_serving(registry, champion, console)
        return
    _train(data, settings, registry, champion, console)


def _import_champion(settings: Settings, console: ProgressConsole) -> bool:
    registry = Registry(settings.tracking_uri)
    champion = registry.champion()
    if champion is not None:
        console.rich.print(f"release {champion.number} is champion: nothing to train")
        import_for_serving(registry, champion, console)
    return champion is not None


def _train(
    data: Transactions,
    settings: Settings,
    registry: Registry,
    champion: Release | None,
    console: ProgressConsole,
) -> None:
    from training.model_store.store_folder import make_store_folder
    from training.models.network_fit import pick_device
    from training.models.training import train
    from training.registry.promotion_check import challenger_of_training
    from training.registry.record import record_release
    from training.registry.training_runs import open_runs

    pick_device(settings.device)  # what cannot work is said before anything is recorded
    if not settings.challenge:
        make_store_folder()
    with open_runs(registry, data, settings, "train") as runs:
        training = train(data, settings, console, runs.reports())
        with console.step("Record in MLflow") as report:
            release, latency = record_release(runs, training, str(settings.data or data.name))
            registry.set_challenger(release)
            report(f"release {release.number}, alias challenger")
    _print_figures(training, console.rich)
    challenger = challenger_of_training(release, training, latency)
    run_gate_step(registry, challenger, champion, console)
    if settings.challenge:
        console.rich.print(f"release {release.number} is challenger; nothing is promoted")
        return
    promote_if_passed(registry, release, lambda: challenger, settings.gate, console)
    import_for_serving(registry, release, console)


def _is_unchanged(champion: Release, data: Transactions, settings: Settings) -> bool:
    from training.registry.recipe import recipe_key

    return champion.fingerprint == data.fingerprint and champion.tags.get("recipe") == recipe_key(settings)


def _print_figures(training: TrainingResult, out: Console) -> None:
    from training.reporting.model_card import MODELS, SHOWN, figure_text, metric_name

    confidence = training.settings.evaluation.confidence
    title = f"Test part of {training.data.name}, {confidence:.0%} intervals"
    # Without its edges the table fits a terminal of 80 columns.
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=0, show_edge=False)
    table.add_column("")
    for name in MODELS.values():
        table.add_column(name, justify="right", no_wrap=True)
    for metric in SHOWN:
        cells = (figure_text(metric, training.figures[model][metric]) for model in MODELS)
        table.add_row(metric_name(metric), *(cell.replace("(", "[dim](") + "[/dim]" for cell in cells))
    out.print(table)
