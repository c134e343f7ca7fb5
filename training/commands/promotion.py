"""`promote`, `rollback` and `import`: which release is champion, and that it is what serving loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from training.console import ProgressConsole
from training.errors import DataError, GateRefusedError, UsageError
from training.registry.bento_store import import_release
from training.registry.releases import Registry, Release
from training.registry.store_record import Pair
from training.settings.load import Settings, load_settings

if TYPE_CHECKING:
    from training.evaluation.gate import GateResult
    from training.registry.promotion_check import Challenger


def import_command(out: Console, *, challenger: bool = False) -> None:
    """Bring the champion to the model store as active, or the challenger beside it."""
    registry = Registry(load_settings().tracking_uri)
    release = registry.require_challenger() if challenger else registry.require_champion()
    import_for_serving(registry, release, ProgressConsole(out), as_challenger=challenger)


def promote_command(number: str, overrides: Mapping[str, Any], out: Console) -> None:
    """Make a release the champion, if the gate lets it pass; a missing or stale verdict is renewed."""
    settings, console = load_settings(overrides), ProgressConsole(out)
    registry = Registry(settings.tracking_uri)
    release, champion = registry.release(number), registry.champion()
    if champion is None or champion.number != release.number:
        passed = _is_passed(registry, release, champion, settings, console)
        registry.promote(release, None if passed else {"forced": "true"})
    out.print(f"release {number} is champion")
    import_for_serving(registry, release, console)


def _is_passed(
    registry: Registry,
    release: Release,
    champion: Release | None,
    settings: Settings,
    console: ProgressConsole,
) -> bool:
    """Return whether the gate lets a release pass; raise GateRefusedError where it does not and must."""
    from training.registry.promotion_check import challenger_of_registry, staleness_reason

    number, why_not = release.number, staleness_reason(release, champion)
    force = settings.gate.force
    verdict = release.tags.get("gate", "")
    if why_not is not None and not force:
        try:
            challenger = challenger_of_registry(registry, release, settings, console)
        except (DataError, UsageError) as error:
            raise GateRefusedError(
                f"release {number} {why_not}, and cannot be judged now: {error}; "
                "train again, or --force promotes it all the same"
            ) from error
        why_not, verdict = None, run_gate_step(registry, challenger, champion, console).sentence()
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
    import_for_serving(registry, release, ProgressConsole(out))


def run_gate_step(
    registry: Registry, challenger: Challenger, champion: Release | None, console: ProgressConsole
) -> GateResult:
    """Run the gate on a challenger and say what it found."""
    from training.registry.promotion_check import run_gate

    with console.step("Ask the gate") as report:
        verdict = run_gate(registry, challenger, champion)
        report("passed" if verdict.passed else "refused")
    console.rich.print(f"gate {verdict.sentence()}", soft_wrap=True, highlight=False)
    return verdict


def import_for_serving(
    registry: Registry, release: Release, console: ProgressConsole, *, as_challenger: bool = False
) -> Pair:
    """Bring a release to the model store, where running services find it, and return it."""
    keep = load_settings().store.keep_releases
    with console.step("Import as challenger" if as_challenger else "Import for serving") as report:
        pair, imported = import_release(registry, release, as_challenger=as_challenger, keep=keep)
        report(f"version {pair.version}{'' if imported else ' is in the store already'}")
    return pair
