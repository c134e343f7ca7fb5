"""What must hold at the end of the circle, and the table that says whether it does."""

import bisect
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from demo.loop.account import Phase, phase
from demo.loop.parts import REFUSED
from demo.loop.story import Story


@dataclass(frozen=True)
class Check:
    """One thing that must hold."""

    name: str
    found: str
    wanted: str
    holds: bool


def phases(story: Story) -> list[Phase]:
    """Return how the parts of the stream were decided: before the change, after it, by the new release."""
    change, made = story.parts.plan.change_at, list(story.account.made.values())
    first = [one for one in made if one.release == story.first]
    return [
        phase(f"before the change, release {story.first}", [one for one in first if one.number < change]),
        phase(f"after it, release {story.first}", [one for one in first if one.number >= change]),
        phase(f"after it, release {story.second}", [one for one in made if one.release == story.second]),
    ]


def alarm_delay(story: Story, kind: str) -> int | None:
    """Return the transactions between the change and an alarm; None when there was none."""
    at_ms = story.monitored.first_alarm_ms(kind, story.first)
    if at_ms is None:
        return None
    times = sorted(story.account.produced_at_ms.values())
    return bisect.bisect_left(times, at_ms) - story.parts.plan.change_at


def judge(story: Story) -> list[Check]:
    """Return every check of the run."""
    plan, account = story.parts.plan, story.account
    *_, last = parts = phases(story)
    before, missed, after = (one.recall or 0.0 for one in parts)
    drift, recall = alarm_delay(story, "drift"), alarm_delay(story, "recall")
    others = {one.release for one in account.made.values()} - {story.first, story.second}
    return [
        Check("transactions lost", str(account.lost), "0", account.lost == 0),
        Check("decided twice", str(account.duplicates), "0", account.duplicates == 0),
        Check("dead letters, decisions of no input", f"{_strange(story)}", "0", _strange(story) == 0),
        Check(
            "failed requests of another caller",
            str(len(story.prober.failures)),
            "0",
            not story.prober.failures,
        ),
        _alarm("drift alarm, transactions after the change", drift, plan.drift_bound),
        _alarm("recall alarm, transactions after the change", recall, plan.recall_bound),
        Check("worse challenger", _gate(story.worse_status), "refused", story.worse_status == REFUSED),
        Check("releases that decided besides these two", str(len(others)), "0", not others),
        Check("recall falls", f"{before:.3f} to {missed:.3f}", "by .2 at least", missed <= before - 0.2),
        Check(
            "recall is back",
            f"{after:.3f}" if last.decisions else f"the stream ended before release {story.second} decided",
            f"{before - plan.recall_loss:.3f} at least",
            after >= before - plan.recall_loss,
        ),
    ]


def _strange(story: Story) -> int:
    return story.account.strangers + story.account.dead_letters.total()


def _alarm(name: str, delay: int | None, bound: int) -> Check:
    # One before the change is a false alarm.
    found = "none" if delay is None else f"{delay:,}"
    return Check(name, found, f"0 to {bound:,}", delay is not None and 0 <= delay <= bound)


def _gate(status: int) -> str:
    return "refused" if status == REFUSED else f"status {status}"


def show(story: Story, checks: list[Check], seconds: float, console: Console) -> None:
    """Print phases and checks."""
    table = Table(title="The stream, by what was true", title_justify="left", title_style="bold")
    for heading in ("", "transactions", "frauds", "caught", "recall", "precision"):
        table.add_column(heading, justify="right" if heading else "left")
    for one in phases(story):
        figures = ("-" if figure is None else f"{figure:.3f}" for figure in (one.recall, one.precision))
        table.add_row(one.name, f"{one.decisions:,}", str(one.frauds), str(one.caught), *figures)
    console.print(table, highlight=False)
    table = Table(title="What must hold", title_justify="left", title_style="bold")
    for heading in ("", "found", "wanted", ""):
        table.add_column(heading)
    for check in checks:
        mark = "[green]ok[/green]" if check.holds else "[bold red]FAILED[/bold red]"
        table.add_row(check.name, check.found, check.wanted, mark)
    console.print(table, highlight=False)
    if not story.broker.is_genuine:
        console.print(
            "The embedded broker proves nothing about exactly once; set KAFKA_HOME for genuine Kafka."
        )
    console.print(
        f"{seconds:.0f} s; slowest of {story.prober.asked:,} requests {1000 * story.prober.slowest_s:.0f} ms",
        highlight=False,
    )


def write(story: Story, checks: list[Check], seconds: float, path: Path) -> None:
    """Write the figures as JSON."""
    begun = story.events[0][0]
    document = {
        "seconds": round(seconds, 1),
        "broker": story.broker.description,
        "phases": [
            {"name": one.name, "decisions": one.decisions, "frauds": one.frauds, "caught": one.caught}
            | {"recall": one.recall, "precision": one.precision}
            for one in phases(story)
        ],
        "checks": [vars(check) for check in checks],
        "events": [{"second": round(at - begun, 1), "what": what} for at, what in sorted(story.events)],
        "gate": {"worse": story.worse_said, "promoted": story.promoted_said},
        "requests": story.prober.asked,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
