"""What the monitor refuses at its start, and how several share the partitions."""

import contextlib
import time
from pathlib import Path

import httpx
import pytest
from kafka import KafkaAdminClient

from tests.e2e.faults import wait_until
from tests.e2e.monitor_world import MonitorWorld
from tests.monitored_stream import Sent, tell
from tests.recount import assert_matches, cases, window

pytestmark = pytest.mark.timeout(170)


def test_topics_that_cannot_be_joined_are_refused_with_what_to_do(
    genuine_broker: str, tmp_path: Path
) -> None:
    with MonitorWorld(genuine_broker, tmp_path) as world:
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=genuine_broker)) as admin:
            admin.create_partitions({world.topics["labels"]: 6})
        world.start()
        wait_until(lambda: world.monitor.poll() is not None, 60, "the monitor goes on")
        assert world.monitor.poll() == 1
        log = world.monitor.log.read_text()
        assert "has 6 partitions" in log and "Make them equal" in log


def test_a_partition_that_is_not_there_is_a_wrong_setting(genuine_broker: str, tmp_path: Path) -> None:
    with MonitorWorld(genuine_broker, tmp_path, monitor__partitions="[3, 4]") as world:
        world.start()
        wait_until(lambda: world.monitor.poll() is not None, 60, "the monitor goes on")
        assert world.monitor.poll() == 2
        assert "partitions 0 to 3" in world.monitor.log.read_text()


def test_two_monitors_share_the_partitions(genuine_broker: str, tmp_path: Path) -> None:
    """Together they count every record once."""
    with MonitorWorld(genuine_broker, tmp_path / "a", monitor__partitions="[0, 1]") as first:
        second = MonitorWorld(
            genuine_broker, tmp_path / "b", topics=first.topics, monitor__partitions="[2, 3]"
        )
        try:
            first.start()
            second.start()
            first.send(tell(first.topics, seed=6, rows=600, now_ms=int(time.time() * 1000)).records)
            everything = first.read_back()
            check_part(first, [one for one in everything if one.partition < 2])
            check_part(second, [one for one in everything if one.partition >= 2])
        finally:
            second.monitor.kill()


def check_part(world: MonitorWorld, mine: list[Sent]) -> None:
    document = world.wait_for(len(mine))
    counted = cases(mine)
    for one in document["releases"]:
        figures = one["windows"]["since_release"]
        assert_matches(figures, window(counted, one["role"], one["release"], 0))
    metrics = httpx.get(f"{world.url}/metrics").text
    assert "process_resident_memory_bytes" in metrics and "monitor_disk_free_bytes" in metrics
