"""The monitor on a real broker, in short: killed, fed late, shown to people."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.monitor_world import MonitorWorld
from tests.monitored_stream import tell
from tests.recount import assert_matches, cases, paired, window

pytestmark = pytest.mark.timeout(170)


@pytest.fixture
def world(broker: str, tmp_path: Path) -> Iterator[MonitorWorld]:
    with MonitorWorld(broker, tmp_path) as world:
        yield world


def check_against_topics(world: MonitorWorld) -> None:
    """Compare what is shown with a recount of what lies in the topics."""
    records = world.read_back()
    document = world.wait_for(len(records))
    counted = cases(records)
    assert document["state"] == "ok", document["sentence"]
    for one in document["releases"]:
        for figures in one["windows"].values():
            assert_matches(figures, window(counted, one["role"], one["release"], figures["from_ms"]))
    if document["shadow"] is not None:
        releases = document["shadow"]["champion"], document["shadow"]["challenger"]
        assert_matches(document["shadow"]["windows"]["since_release"], paired(counted, releases, 0))
    assert world.records_read(document) == len(records)


def test_killed_at_random_it_counts_nothing_twice_and_loses_nothing(world: MonitorWorld) -> None:
    rng = random.Random(3)
    world.start()
    offsets: dict[tuple[str, int], int] = {}
    for part in range(5):
        now_ms = int(time.time() * 1000)
        world.send(tell(world.topics, seed=part, rows=600, now_ms=now_ms, offsets=offsets).records)
        time.sleep(rng.uniform(0.0, 1.5))
        world.kill()
        world.start()
    check_against_topics(world)
    metrics = httpx.get(f"{world.url}/metrics").text
    assert "monitor_figure{" in metrics and "monitor_retraining_advised 0.0" in metrics
    assert httpx.get(f"{world.url}/readyz").status_code == 200
