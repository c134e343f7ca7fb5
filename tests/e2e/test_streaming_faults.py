"""The bridge under faults, in short: `test_streaming_faults_long.py` does the same for half an hour."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.faults import World

pytestmark = pytest.mark.timeout(170)


@pytest.fixture
def world(genuine_broker: str, tmp_path: Path) -> Iterator[World]:
    with World(genuine_broker, tmp_path) as world:
        yield world


def test_killed_bridges_and_a_failing_service_lose_and_double_nothing(world: World) -> None:
    rng = random.Random(1)
    names = ("a", "b")
    for name in names:
        world.start_bridge(name)
    with world.feed(400):
        world.wait_progress(400, 40)
        for mode, value in (("ok", None), ("status", 503), ("reset", None), ("half", None), ("swap", None)):
            world.script(mode, value)
            time.sleep(rng.uniform(0.3, 1.2))
            name = rng.choice(names)
            world.kill_bridge(name)
            world.start_bridge(name)
        world.service.kill()
        time.sleep(1.0)
        world.start_service()
    world.wait_drained(60)
    report = world.report()
    assert report.is_clean, report
    assert report.dead_letters


def test_a_frozen_bridge_is_no_danger_when_it_wakes(world: World) -> None:
    world.start_bridge("a")
    world.start_bridge("b")
    with world.feed(300):
        world.wait_progress(200, 40)
        os.killpg(world.bridges["a"].pid, signal.SIGSTOP)
        time.sleep(8.0)  # its session lasts 6 s
        os.killpg(world.bridges["a"].pid, signal.SIGCONT)
        world.wait_progress(300, 40)
    world.wait_drained(60)
    report = world.report()
    assert report.is_clean, report
