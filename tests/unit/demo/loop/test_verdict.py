"""The loop's own checks: each fails when what it is about goes wrong."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from demo.brokers import Broker
from demo.loop.account import Account
from demo.loop.picture import draw
from demo.loop.plan import Plan
from demo.loop.story import Story
from demo.loop.verdict import alarm_delay, judge, phases, show, write

PLAN = Plan(change_at=1000, drift_bound=300, recall_bound=500)
ROWS = 3000
BEGUN_MS = 1_700_000_000_000


class FakeParts:
    plan = PLAN


class FakeProber:
    def __init__(self) -> None:
        self.failures: list[str] = []
        self.asked, self.slowest_s = 100, 0.02


class FakeMonitored:
    def __init__(self) -> None:
        self.alarms: dict[str, int | None] = {"drift": 1200, "recall": 1400}
        self.history: list[Any] = []

    def first_alarm_ms(self, kind: str, release: str) -> int | None:
        number = self.alarms[kind]
        return None if number is None else BEGUN_MS + number


def decision(number: int, *, release: str, is_alarm: bool) -> bytes:
    return json.dumps(
        {
            **{"transaction_id": f"T-{number}", "decision": "approve", "is_fraud": is_alarm},
            **{"fraud_probability": 0.1, "release": release, "decided_at_ms": BEGUN_MS + number},
            "source": {"topic": "t", "partition": 0, "offset": number},
        }
    ).encode()


@pytest.fixture
def story() -> Story:
    """A run as it should be: a fraud in ten, all seen but between the change and release 2."""
    names = [f"T-{number}" for number in range(ROWS)]
    fraud = {name: number % 10 == 0 for number, name in enumerate(names)}
    account = Account(fraud=fraud, place={name: number for number, name in enumerate(names)})
    for number, name in enumerate(names):
        release = "1" if number < 2000 else "2"
        is_alarm = fraud[name] and not 1000 <= number < 2000
        account.book_input((0, number), BEGUN_MS + number)
        account.book_decision(decision(number, release=release, is_alarm=is_alarm), BEGUN_MS)
    parts: Any = FakeParts()
    prober: Any = FakeProber()
    monitored: Any = FakeMonitored()
    none: Any = None
    broker = Broker("h:1", "a broker", is_genuine=True)
    story = Story(parts, none, broker, account, none, prober, monitored, "1", "2", worse_status=3)
    story.events.append((BEGUN_MS / 1000, "the stream begins"))
    return story


def failed(story: Story) -> list[str]:
    return [check.name for check in judge(story) if not check.holds]


def test_a_run_as_it_should_be_passes(story: Story) -> None:
    assert failed(story) == []
    assert [one.recall for one in phases(story)] == [1.0, 0.0, 1.0]
    assert alarm_delay(story, "drift") == 200


@pytest.mark.parametrize(
    ("number", "again", "name"),
    [(5000, False, "transactions lost"), (7, True, "decided twice")],
)
def test_a_lost_and_a_doubled_one_are_seen(story: Story, number: int, again: bool, name: str) -> None:
    if again:
        story.account.book_decision(decision(number, release="1", is_alarm=False), BEGUN_MS)
    else:
        story.account.book_input((0, number), BEGUN_MS)
    assert failed(story) == [name]


def test_a_stream_that_ended_too_soon_is_no_recall_of_nought(story: Story) -> None:
    story.second = "3"
    story.account.made = {place: one for place, one in story.account.made.items() if one.release == "1"}
    back = next(check for check in judge(story) if check.name == "recall is back")
    assert (back.found, back.holds) == ("the stream ended before release 3 decided", False)


def test_a_dead_letter_is_seen(story: Story) -> None:
    story.account.book_input((0, 9000), BEGUN_MS)
    story.account.book_dead_letter((0, 9000), "missing")
    assert failed(story) == ["dead letters, decisions of no input"]


@pytest.mark.parametrize("number", [None, 999, 1301])
def test_an_alarm_has_to_come_after_the_change_and_in_time(story: Story, number: int | None) -> None:
    monitored: Any = story.monitored
    monitored.alarms["drift"] = number
    assert failed(story) == ["drift alarm, transactions after the change"]


def test_failed_requests_a_passed_worse_challenger_and_a_recall_that_stays_low_are_seen(story: Story) -> None:
    story.prober.failures.append("503")
    story.worse_status = 0
    for place, one in story.account.made.items():
        if one.release == "2" and one.number % 100 == 0:
            story.account.made[place] = dataclasses.replace(one, is_alarm=False)
    assert failed(story) == ["failed requests of another caller", "worse challenger", "recall is back"]


def test_the_table_the_figures_and_the_picture_are_made(story: Story, tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(record=True, width=120)
    checks = judge(story)
    show(story, checks, 300.0, console)
    assert "recall is back" in console.export_text()
    write(story, checks, 300.0, tmp_path / "loop.json")
    assert json.loads((tmp_path / "loop.json").read_text())["phases"][1]["recall"] == 0.0
    draw(story, tmp_path / "loop.png")
    assert (tmp_path / "loop.png").read_bytes().startswith(b"\x89PNG")
