"""What each command does, once its flags are settings."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from training.console import Screen
from training.errors import DataError, GateRefusedError, UsageError
from training.registry.bento_store import Pair, import_release
from training.registry.releases import Registry, Release
from training.settings import Settings, load_settings, required

if TYPE_CHECKING:
    from training.data.transactions import Transactions
    from training.evaluation.gate import Verdict
    from training.models.training import Training
    from training.registry.promotion_check import Contender


def train_command(overrides: Mapping[str, Any], out: Console) -> None:
    """Fit, record, judge, promote and import."""
    from training.data.source import read_data, write_held_out

    settings = load_settings(overrides)
    screen = Screen(out)
    if settings.if_none and _import_champion(settings, screen):
        return
    data = read_data(settings, screen)
    with screen.step("Open the registry") as report:
        registry = Registry(settings.tracking_uri)
        champion = registry.champion()
        report(f"champion: release {champion.number}" if champion else "no champion yet")
    if settings.held_out is not None:
        write_held_out(data, settings, settings.held_out)
    if settings.if_changed and champion is not None and _is_unchanged(champion, data, settings):
        out.print(f"release {champion.number} was trained from the same data and settings: nothing to do")
        _import(registry, champion, screen)
        return
    _train(data, settings, registry, champion, screen)


def _import_champion(settings: Settings, screen: Screen) -> bool:
    registry = Registry(settings.tracking_uri)
    champion = registry.champion()
    if champion is not None:
        screen.console.print(f"release {champion.number} is champion: nothing to train")
        _import(registry, champion, screen)
    return champion is not None


def _train(
    data: Transactions,
    settings: Settings,
    registry: Registry,
    champion: Release | None,
    screen: Screen,
) -> None:
    from training.models.training import train
    from training.registry.promotion_check import fresh_contender
    from training.registry.record import publish

    training = train(data, settings, screen)
    with screen.step("Record in MLflow") as report:
        release, latency = publish(registry, training, str(settings.data or data.name))
        registry.challenge(release)
        report(f"release {release.number}, alias challenger")
    _print_figures(training, screen.console)
    verdict = _ask_gate(registry, fresh_contender(release, training, latency), champion, screen)
    if not verdict.passed and not settings.gate.force:
        raise GateRefusedError(
            f"release {release.number} stays challenger: {'; '.join(verdict.reasons)}; "
            f"`python -m training promote {release.number} --force` promotes it all the same"
        )
    registry.promote(release, {"forced": "true"} if not verdict.passed else None)
    _import(registry, release, screen)


def _ask_gate(registry: Registry, contender: Contender, champion: Release | None, screen: Screen) -> Verdict:
    from training.registry.promotion_check import ask_gate

    with screen.step("Ask the gate") as report:
        verdict = ask_gate(registry, contender, champion)
        report("passed" if verdict.passed else "refused")
    screen.console.print(f"gate {verdict.sentence()}", soft_wrap=True, highlight=False)
    return verdict


def _is_unchanged(champion: Release, data: Transactions, settings: Settings) -> bool:
    from training.registry.recipe import recipe_key

    return champion.fingerprint == data.fingerprint and champion.tags.get("recipe") == recipe_key(settings)


def _import(registry: Registry, release: Release, screen: Screen) -> Pair:
    with screen.step("Import for serving") as report:
        pair, imported = import_release(registry, release)
        report(f"version {pair.version}{'' if imported else ' is in the store already'}")
    return pair


def _print_figures(training: Training, out: Console) -> None:
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


def score_command(overrides: Mapping[str, Any], out: Console) -> None:
    """Score a file with the champion."""
    from training.data.transactions import count_rows
    from training.scoring.scorer import Scorer, score_file

    settings = load_settings(overrides)
    data, output = required(settings.score.data, "--data"), required(settings.score.output, "--output")
    total = count_rows(data)  # before the registry: a wrong path is said at once
    registry = Registry(settings.tracking_uri)
    champion = registry.require_champion()
    with tempfile.TemporaryDirectory() as folder:
        scorer = Scorer(registry.fetch(champion, Path(folder)), threads=settings.threads)
    with _progress(out) as progress:
        task = progress.add_task(f"release {champion.number}", total=total)
        rows = score_file(scorer, data, output, lambda done: progress.advance(task, done))
        seconds = progress.tasks[0].elapsed or 1e-9
    out.print(
        f"{rows:,} transactions scored by release {champion.number} "
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


def import_command(out: Console) -> None:
    """Bring the champion to the model store."""
    registry = Registry(load_settings().tracking_uri)
    _import(registry, registry.require_champion(), Screen(out))


def promote_command(number: str, overrides: Mapping[str, Any], out: Console) -> None:
    """Make a release the champion, if the gate lets it pass; a missing or stale verdict is renewed."""
    settings, screen = load_settings(overrides), Screen(out)
    registry = Registry(settings.tracking_uri)
    release, champion = registry.release(number), registry.champion()
    if champion is None or champion.number != release.number:
        passed = _is_passed(registry, release, champion, settings, screen)
        registry.promote(release, None if passed else {"forced": "true"})
    out.print(f"release {number} is champion")
    _import(registry, release, screen)


def _is_passed(
    registry: Registry,
    release: Release,
    champion: Release | None,
    settings: Settings,
    screen: Screen,
) -> bool:
    """Return whether the gate lets a release pass; raise GateRefusedError where it does not and must."""
    from training.registry.promotion_check import read_contender, stale

    number, why_not = release.number, stale(release, champion)
    force = settings.gate.force
    verdict = release.tags.get("gate", "")
    if why_not is not None and not force:
        try:
            contender = read_contender(registry, release, settings, screen)
        except (DataError, UsageError) as error:
            raise GateRefusedError(
                f"release {number} {why_not}, and cannot be judged now: {error}; "
                "train again, or --force promotes it all the same"
            ) from error
        why_not, verdict = None, _ask_gate(registry, contender, champion, screen).sentence()
    passed = why_not is None and verdict.startswith("passed")
    if not passed and not force:
        raise GateRefusedError(
            f"the gate says about release {number}: {verdict}; --force promotes it all the same"
        )
    return passed


def rollback_command(out: Console) -> None:
    """Go back one release."""
    registry = Registry(load_settings().tracking_uri)
    release = registry.rollback()
    out.print(f"release {release.number} is champion again")
    _import(registry, release, Screen(out))


def releases_command(out: Console) -> None:
    """List the releases, newest first."""
    registry = Registry(load_settings().tracking_uri)
    registry.champion()
    table = Table(title=f"Releases in {registry.shown_uri}", title_justify="left", box=SIMPLE, padding=(0, 1))
    for column in ("release", "alias", "trained (UTC)", "data", "AP, test part", "versions", "gate"):
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
        f"{release.tags.get('data', '')} ({release.tags.get('protocol', '')})",
        release.tags.get("average_precision", ""),
        f"{release.network_version} + {release.trees_version}",
        gate,
    )
