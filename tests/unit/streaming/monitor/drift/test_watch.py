"""Each release is compared with its own training data, and a restart goes on where it was."""

import json
import random
from typing import Any

import pytest

from streaming.monitor.drift.watch import DriftWatch
from streaming.monitor.observations import CHALLENGER, CHAMPION, FEATURES, Payment
from streaming.monitor.promises import read_promise
from streaming.monitor.store.state import DriftState
from streaming.settings.drift import DriftSettings
from tests.info_service import document

SHIFT = 1.0


def payments(rows: int, seed: int = 0) -> list[Payment]:
    """Return transactions of standard normals, all but V14 and Amount, which no reference here knows."""
    rng = random.Random(seed)
    drawn = ({name: rng.gauss(0.0, 1.0) for name in FEATURES} for _ in range(rows))
    rows_of = (
        {**row, "V14": row["V14"] + SHIFT, "Amount": 2.718281828459045 ** rng.gauss(4, 1.5)} for row in drawn
    )
    return [
        Payment(0, number, 0, row["Amount"], None, tuple(row[name] for name in FEATURES))
        for number, row in enumerate(rows_of)
    ]


def release(name: str, *, knows_the_shift: bool = False) -> str:
    """Return a release's document; its data had the shift already, or not."""
    found = document(name)
    normal = found["reference"]["features"]["V14"]
    edges = [edge + SHIFT for edge in normal["edges"]] if knows_the_shift else normal["edges"]
    found["reference"]["features"] |= {"V14": {**normal, "edges": edges}}
    return json.dumps(found)


def follow(watch: DriftWatch, role: int, name: str, **options: bool) -> None:
    watch.follow(role, name, read_promise(release(name, **options)))


def drifted(states: list[DriftState], role: int) -> set[str]:
    """Return the series of a role's release that are drifted now."""
    findings: list[dict[str, Any]] = next(json.loads(one.findings) for one in states if one.role == role)
    return {one["series"] for one in findings if one["is_drifted"]}


def test_a_release_that_was_trained_on_the_change_is_no_drift() -> None:
    watch = DriftWatch(DriftSettings(), {})
    follow(watch, CHAMPION, "12")
    assert drifted(watch.update(payments(5000), []), CHAMPION) == {"V14"}
    follow(watch, CHAMPION, "13", knows_the_shift=True)
    assert watch.watches(CHAMPION, "13")
    assert drifted(watch.update(payments(5000, seed=1), []), CHAMPION) == set()


def test_champion_and_challenger_are_each_measured_against_their_own_data() -> None:
    watch = DriftWatch(DriftSettings(), {})
    follow(watch, CHAMPION, "12")
    follow(watch, CHALLENGER, "13", knows_the_shift=True)
    states = watch.update(payments(5000), [])
    assert (drifted(states, CHAMPION), drifted(states, CHALLENGER)) == ({"V14"}, set())


@pytest.mark.parametrize(("after", "is_kept"), [("12", True), ("13", False)])
def test_a_restart_goes_on_with_the_same_release_only(after: str, is_kept: bool) -> None:
    watch = DriftWatch(DriftSettings(), {})
    follow(watch, CHAMPION, "12")
    (kept,) = watch.update(payments(4000), [])
    again = DriftWatch(DriftSettings(), {CHAMPION: kept})
    follow(again, CHAMPION, after)
    (state,) = again.update(payments(1, seed=1), [])
    assert json.loads(state.state)["V14"]["seen"] == (4001 if is_kept else 1)
    assert bool(json.loads(state.findings)) is is_kept
