"""The monitor's counts against a recount of the same records, whatever the order in which they come."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming.monitor.intake import Intake
from streaming.monitor.quality.report import Reporter
from streaming.monitor.store.state import State
from streaming.records import InputRecord
from streaming.settings.monitor import MonitorSettings
from tests.monitored_stream import Stream, tell
from tests.recount import assert_matches, cases, paired, window

TOPICS = {"transactions": "in", "decisions": "out", "shadow": "out.shadow", "labels": "labels"}
NOW_MS = 1_790_000_000_000


def batches(records: Iterator[InputRecord], size: int) -> Iterator[list[InputRecord]]:
    while batch := list(itertools.islice(records, size)):
        yield batch


def take_in(state: State, stream: Stream, seed: int, size: int = 300) -> None:
    intake = Intake(TOPICS)
    for records in batches(stream.inputs(random.Random(seed)), size):
        state.apply(intake.read(records), {}, [])


def report(state: State, settings: MonitorSettings) -> dict[str, Any]:
    return Reporter(state, settings).report(NOW_MS)


def check(document: dict[str, Any], stream: Stream, releases: tuple[str, str] = ("12", "13")) -> None:
    """Compare every window with a recount."""
    counted = cases(stream.records)
    for one in document["releases"]:
        for figures in one["windows"].values():
            assert_matches(figures, window(counted, one["role"], one["release"], figures["from_ms"]))
    starts = {name: figures["from_ms"] for name, figures in document["releases"][0]["windows"].items()}
    for name, figures in document["shadow"]["windows"].items():
        assert_matches(figures, paired(counted, releases, starts[name]))


@pytest.fixture
def settings(tmp_path: Path) -> MonitorSettings:
    return MonitorSettings(state=tmp_path / "state")


@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_a_recount_in_any_order_of_arrival(settings: MonitorSettings, seed: int) -> None:
    stream = tell(TOPICS, seed=7, rows=3000, now_ms=NOW_MS)
    state = State(settings)
    take_in(state, stream, seed, size=random.Random(seed).choice((1, 17, 400, 10_000)) if seed else 400)
    document = report(state, settings)
    state.close()
    check(document, stream)
    labels = document["counts"]["records"]["labels"]
    assert labels["unreadable"] == 20
    assert document["counts"]["labels_waiting"] == 20
    assert labels["duplicate"] > 0 and document["counts"]["records"]["transactions"]["unreadable"] > 0
