# the counts are the point
"""The bridge on three brokers, with a service that takes its time, while everything dies: `make e2e`."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.faults import World, wait_until
from tests.e2e.test_slow_service_long import evict, judge

pytestmark = [
    pytest.mark.e2e_long,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("genuine_broker"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FAULTS_S, RATE = 240.0, 400
SERVICE_S = (0.0, 0.05, 0.3, 1.0, 2.0)
PATIENCE = {"SERVICE__REQUEST_TIMEOUT_S": 6, "BRIDGE__REVOKE_TIMEOUT_S": 2}


class Faults:
    """One fault after another, each undone before the next: two of three brokers must stay."""

    def __init__(self, cluster: Cluster, world: World) -> None:
        self._cluster, self._world = cluster, world
        self._rng = random.Random(16)
        self.counts: dict[str, int] = {}

    def __call__(self) -> None:
        self._world.script("slow", self._rng.choice(SERVICE_S))
        bridge = (self.kill_bridge, self.freeze_bridge, self.evict_bridge)
        kind = self._rng.choice((*bridge, self.kill_broker, self.freeze_broker))
        self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
        kind()
        time.sleep(self._rng.uniform(0.5, 3.0))

    def kill_bridge(self) -> None:
        name = self._rng.choice("abc")
        self._world.kill_bridge(name)
        self._world.start_bridge(name, **PATIENCE)

    def freeze_bridge(self) -> None:
        bridge = self._world.bridges[self._rng.choice("abc")]
        os.killpg(bridge.pid, signal.SIGSTOP)
        time.sleep(8.0)  # its session lasts 6 s
        os.killpg(bridge.pid, signal.SIGCONT)

    def evict_bridge(self) -> None:
        evict(self._world, self._rng.choice("abc"))

    def kill_broker(self) -> None:
        node = self._rng.choice(self._cluster.nodes)
        node.kill()
        time.sleep(self._rng.uniform(0.5, 8.0))
        node.start()
        node.wait_ready()
        self._wait_for_copies()

    def freeze_broker(self) -> None:
        node = self._rng.choice(self._cluster.nodes)
        node.freeze()
        time.sleep(self._rng.uniform(1.0, 6.0))
        node.thaw()
        self._wait_for_copies()

    def _wait_for_copies(self) -> None:
        """Wait until all copies are in step again: the next broker may go only then."""
        wait_until(self._cluster.is_in_step, 90, "a broker's copies do not catch up", every_s=0.5)


def test_everything_dies_in_turn_around_a_slow_service(cluster: Cluster, tmp_path: Path) -> None:
    with World(cluster.servers, tmp_path, partitions=6, copies=3) as world:
        world.script("slow", 0.3)
        for name in "abc":
            world.start_bridge(name, **PATIENCE)
        faults = Faults(cluster, world)
        with world.feed(RATE):
            world.wait_progress(300, 90)
            until = time.monotonic() + FAULTS_S
            while time.monotonic() < until:
                faults()
        world.script("slow", 0.05)
        judge(world, f"three brokers, service of 0 to 2 s: {faults.counts}")
