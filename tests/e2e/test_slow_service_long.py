# ruff: noqa: T201  # the counts are the point
"""Bridges that freeze or are evicted while a slow service holds their records: `make e2e`.

With an instant service nothing is in flight when a bridge freezes, and any bridge is exact.
"""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove

from tests.e2e.faults import World, patiently

pytestmark = [
    pytest.mark.e2e_long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FREEZES, FROZEN_S, EVICTIONS = 12, 8.0, 30
PATIENCE = {"SERVICE__REQUEST_TIMEOUT_S": 5, "BRIDGE__REVOKE_TIMEOUT_S": 2}


def judge(world: World, what: str) -> None:
    world.wait_drained(240)
    report = world.report()
    print(f"\n{what}: {report}")
    assert report.is_clean, report


@pytest.mark.parametrize("service_s", [0.0, 0.5, 2.0])
def test_bridges_freeze_beyond_their_session(genuine_broker: str, tmp_path: Path, service_s: float) -> None:
    with World(genuine_broker, tmp_path, partitions=6) as world:
        world.script("slow", service_s)
        for name in ("a", "b"):
            world.start_bridge(name, **PATIENCE)
        with world.feed(250):
            world.wait_progress(300, 60)
            for number in range(FREEZES):
                bridge = world.bridges["ab"[number % 2]]
                os.killpg(bridge.pid, signal.SIGSTOP)
                time.sleep(FROZEN_S)  # its session lasts 6 s
                os.killpg(bridge.pid, signal.SIGCONT)
                time.sleep(1.0)
        judge(world, f"{FREEZES} freezes of {FROZEN_S:g} s, service {service_s:g} s")


def test_bridges_are_evicted_by_hand(genuine_broker: str, tmp_path: Path) -> None:
    rng = random.Random(4)
    with World(genuine_broker, tmp_path, partitions=6) as world:
        world.script("slow", 0.8)
        for name in ("a", "b"):
            world.start_bridge(name, **PATIENCE)
        with world.feed(250):
            world.wait_progress(300, 60)
            for _ in range(EVICTIONS):
                evict(world, rng.choice("ab"))
                time.sleep(rng.uniform(0.5, 2.5))
        judge(world, f"{EVICTIONS} evictions, service 0.8 s")


def evict(world: World, instance_id: str) -> None:
    def order() -> None:
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=world.servers)) as admin:
            members = admin.describe_groups([world.group])[world.group]["members"]
            for member in members:
                if member["group_instance_id"] == instance_id:
                    gone = MemberToRemove(member_id=member["member_id"], group_instance_id=instance_id)
                    admin.remove_group_members(world.group, [gone])

    patiently(order)
