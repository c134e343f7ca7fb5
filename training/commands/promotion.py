"""`promote`, `rollback` and `import`: which release is champion, and that it is what serving loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from training.console import ProgressConsole
from training.errors import DataError, GateRefusedError, LiveComparisonError, RegistryError, UsageError
from training.model_store.bento_store import import_release
from training.model_store.store_record import Pair
from training.registry.gate_record import GATE_TAG, staleness_reason
from training.registry.promotion_lock import promotion_lock
from training.registry.releases import CHALLENGER, Registry, Release
from training.settings.load import load_settings
from training.settings.sections import GateSettings

if TYPE_CHECKING:
    from training.evaluation.gate import GateResult
    from training.registry.promotion_check import Challenger

# How often a release is judged again because the champion has changed meanwhile.
ATTEMPTS = 3
LIVE_TAG = "gate_live"


def import_command(out: Console, *, challenger: bool = False) -> None:
    """Bring the champion to the model store as active, or the challenger beside it."""
    registry = Registry(load_settings().tracking_uri)
    release = registry.require_challenger() if challenger else registry.require_champion()
    import_for_serving(registry, release, ProgressConsole(out), as_challenger=challenger)


def promote_command(number: str, overrides: Mapping[str, Any], out: Console) -> None:
    """Make a release the champion if the gate lets it pass; `challenger` is the release of that alias.

    A result of the gate that is missing, or that was not against the present champion, is renewed.
    """
    settings, console = load_settings(overrides), ProgressConsole(out)
    registry = Registry(settings.tracking_uri)
    by_alias = number == CHALLENGER
    release = registry.require_challenger() if by_alias else registry.release(number)

    def read() -> Challenger:
        from training.registry.promotion_check import challenger_of_registry

        return challenger_of_registry(registry, release, settings, console)

    promote_if_passed(registry, release, read, settings.gate, console, ask_live=by_alias)
    out.print(f"release {release.number} is champion")
    import_for_serving(registry, release, console)


def promote_if_passed(
    registry: Registry,
    release: Release,
    read: Callable[[], Challenger],
    gate: GateSettings,
    console: ProgressConsole,
    *,
    ask_live: bool = False,
) -> None:
    """Move the alias if the gate's result, renewed where it does not hold, says so.

    Parameters
    ----------
    read : callable
        Reads what the gate needs to judge the release; called only where it must be judged now.
    ask_live : bool
        Whether the gate asks the monitor too, where the settings name one.

    Raises
    ------
    GateRefusedError
        If the release may not pass or cannot be judged, and is not forced.
    """
    with promotion_lock(registry.tracking_uri):
        for _ in range(ATTEMPTS):
            champion = registry.champion()
            if champion is not None and champion.number == release.number:
                return
            refusal = _find_refusal(registry, release, champion, read, gate, console)
            if refusal is None and ask_live and gate.live is not None:
                refusal = _ask_live(registry, release, champion, gate, gate.live, console)
            if refusal is not None and not gate.force:
                raise GateRefusedError(
                    f"release {release.number} stays challenger: {refusal}; "
                    f"`python -m training promote {release.number} --force` promotes it all the same"
                )
            if _number(registry.champion()) == _number(champion):  # no server has a lock to offer
                registry.promote(release, None if refusal is None else {"forced": "true"})
                return
    raise RegistryError(f"the champion of {registry.shown_uri} keeps changing: promote again later")


def _number(release: Release | None) -> str | None:
    return None if release is None else release.number


def _find_refusal(
    registry: Registry,
    release: Release,
    champion: Release | None,
    read: Callable[[], Challenger],
    gate: GateSettings,
    console: ProgressConsole,
) -> str | None:
    """Return why the release may not become champion; None when it may."""
    recorded = registry.release(release.number)
    reason, sentence = staleness_reason(recorded, champion), recorded.tags.get(GATE_TAG, "")
    if reason is None:
        return None if sentence.startswith("passed") else sentence
    if gate.force:
        return f"it {reason}"
    try:
        challenger = read()
    except (DataError, UsageError) as error:
        return f"it {reason}, and cannot be judged now: {error}"
    result = run_gate_step(registry, challenger, champion, console)
    return None if result.passed else result.sentence()


def _ask_live(
    registry: Registry,
    release: Release,
    champion: Release | None,
    gate: GateSettings,
    source: str,
    console: ProgressConsole,
) -> str | None:
    """Return what the monitor's comparison says against the release; record what it rests on."""
    from training.evaluation.live import judge_live, read_live

    if champion is None:
        return None
    try:
        reasons, notes = judge_live(read_live(source), champion.number, release.number, gate)
    except LiveComparisonError as error:
        reasons, notes = [str(error)], []
    sentence = f"{'refused' if reasons else 'passed'}: {'; '.join((*reasons, *notes))}"
    registry.set_tag(release, LIVE_TAG, sentence)
    console.rich.print(f"live comparison {sentence}", soft_wrap=True, highlight=False)
    return "; ".join(reasons) if reasons else None


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
        result = run_gate(registry, challenger, champion)
        report("passed" if result.passed else "refused")
    console.rich.print(f"gate {result.sentence()}", soft_wrap=True, highlight=False)
    return result


def import_for_serving(
    registry: Registry, release: Release, console: ProgressConsole, *, as_challenger: bool = False
) -> Pair:
    """Bring a release to the model store, where running services find it, and return it.

    Another command may have promoted another release meanwhile, and imported it first: then that one is made
    active again, so that the last import leaves the champion active.
    """
    pair = _import_step(registry, release, console, as_challenger=as_challenger)
    champion = None if as_challenger else registry.champion()
    while champion is not None and champion.number != pair.release:
        pair = _import_step(registry, champion, console)
        champion = registry.champion()
    return pair


def _import_step(
    registry: Registry, release: Release, console: ProgressConsole, *, as_challenger: bool = False
) -> Pair:
    keep = load_settings().store.keep_releases
    with console.step("Import as challenger" if as_challenger else "Import for serving") as report:
        pair, imported = import_release(registry, release, as_challenger=as_challenger, keep=keep)
        report(f"version {pair.version}{'' if imported else ' is in the store already'}")
    return pair
