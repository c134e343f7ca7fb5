# ruff: noqa: T201  # the figures are the point
"""What only a cluster can do to a bridge: lose its leader, its log's end, its first address: `make e2e`."""

import contextlib
import json
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError

from demo.ports import choose_port
from tests.e2e.cluster import Cluster
from tests.e2e.faults import World, read_topic, wait_until
from tests.e2e.test_slow_service_long import evict, judge

pytestmark = [
    pytest.mark.e2e_long,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def create(cluster: Cluster, topic: str, copies: dict[int, list[int]], **configs: str) -> None:
    """Create a topic whose partitions lie on chosen nodes, the first of which leads."""
    settings = {key.replace("_", "."): value for key, value in configs.items()}
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=cluster.servers)) as admin:
        admin.create_topics([NewTopic(topic, replica_assignments=copies, topic_configs=settings)])
        admin.wait_for_topics([topic])


def in_step(cluster: Cluster, topic: str) -> list[int]:
    """Return the nodes that have all of a topic's partition 0, and its leader before them."""
    with contextlib.suppress(KafkaError, OSError):  # one of them is down
        (partition,) = cluster.describe(topic)
        return [partition["leader_id"], *sorted(partition["isr_nodes"])]
    return [-1]


@pytest.mark.parametrize("has_grown", [False, True], ids=["shorter than the commit", "grown past the commit"])
def test_an_unclean_election_stops_the_bridge_until_somebody_accepts_it(
    cluster: Cluster, tmp_path: Path, has_grown: bool
) -> None:
    first, second, _ = cluster.nodes
    with World(cluster.servers, tmp_path, partitions=1, copies=3) as world:
        world.input += ".two-copies"
        unclean = {"unclean_leader_election_enable": "true", "min_insync_replicas": "1"}
        create(cluster, world.input, {0: [first.number, second.number]}, **unclean)
        bridge = world.start_bridge("a")
        with world.feed(300, bad_share=0.0):
            world.wait_progress(300, 60)
        second.kill()
        wait_until(lambda: in_step(cluster, world.input) == [first.number] * 2, 60, "still in step", 0.5)
        with world.feed(301, bad_share=0.0):
            world.wait_progress(900, 60)
        world.wait_drained(60)
        decided = len(read_topic(cluster.servers, world.output, 1))
        if has_grown:
            bridge.stop()
        first.kill()
        second.start()
        second.wait_ready()
        wait_until(lambda: in_step(cluster, world.input)[0] == second.number, 90, "no leader", 0.5)
        if has_grown:
            with world.feed(1500, bad_share=0.0):
                time.sleep(3.0)
            bridge = world.start_bridge("a")
        wait_until(lambda: bridge.poll() is not None, 90, "the bridge goes on")
        assert bridge.poll() == 1
        said = bridge.log.read_text()
        assert f"{world.input}, partition 0 lost records: the group has committed offset {decided}" in said
        assert "--accept-gap" in said
        first.start()
        first.wait_ready()
        left = len(read_topic(cluster.servers, world.input, 1))
        with world.feed(50, bad_share=0.0):  # written between the cut and its acceptance
            wait_until(lambda: len(read_topic(cluster.servers, world.input, 1)) > left, 60, "nothing comes")
        world.start_bridge("a", BRIDGE__ACCEPT_GAP="true")
        with world.feed(302, bad_share=0.0):
            world.wait_progress(0, 60)
            time.sleep(3.0)
        there = {ident(one.value) for one in read_topic(cluster.servers, world.input, 1)}

        def outcomes() -> Counter[str]:
            return Counter(ident(one.value) for one in read_topic(cluster.servers, world.output, 1))

        wait_until(lambda: there <= outcomes().keys(), 90, "not all is decided", 1.0)
        assert set(outcomes().values()) == {1}
        print(f"\nunclean election: {decided} decided before, {len(outcomes())} after, none twice")


def ident(value: bytes | None) -> str:
    return str(json.loads(value or b"")["transaction_id"])


def test_a_group_whose_offsets_have_expired_goes_on_where_its_decisions_end(
    cluster: Cluster, tmp_path: Path
) -> None:
    with World(cluster.servers, tmp_path, partitions=6, copies=3) as world:
        bridge = world.start_bridge("a")
        with world.feed(300):
            world.wait_progress(900, 60)
        world.wait_drained(60)
        bridge.stop()
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=cluster.servers)) as admin:

            def has_expired() -> bool:
                found = admin.list_group_offsets([world.group])[world.group]
                return all(one.offset < 0 for one in found.values())

            wait_until(has_expired, 180, "the offsets are kept", 2.0)
        bridge = world.start_bridge("a")
        with world.feed(301):
            time.sleep(4.0)
        judge(world, "a group whose offsets have expired")
        assert b'"expired"' in bridge.log.read_bytes()


def test_an_output_partition_without_a_leader_holds_its_input_alone(cluster: Cluster, tmp_path: Path) -> None:
    gone = cluster.nodes[1]
    with World(cluster.servers, tmp_path, partitions=6, copies=3) as world:
        world.output += ".one-copy"
        create(
            cluster,
            world.output,
            {number: [cluster.nodes[number % 3].number] for number in range(6)},
            min_insync_replicas="1",
        )
        world.start_bridge("a")
        others = [number for number in range(6) if number % 3 != 1]
        with world.feed(300):
            world.wait_progress(900, 60)
            gone.kill()
            begun, before = time.monotonic(), world._committed()

            def have_decided(records: int) -> bool:
                now = world._committed()
                return all(now[number] - before[number] >= records / 6 for number in others)

            for records in (300, 1500):
                wait_until(lambda records=records: have_decided(records), 60, "the others stand too", 0.5)
                print(f"\nwithout a leader: {records} further after {time.monotonic() - begun:.1f} s")
            gone.start()
            gone.wait_ready()
            world.wait_progress(1500, 120)
        judge(world, "an output partition with one copy, its broker killed")


def test_brokers_that_were_not_named_at_the_start_are_used(cluster: Cluster, tmp_path: Path) -> None:
    named = cluster.nodes[0]
    with World(cluster.servers, tmp_path, partitions=6, copies=3) as world:
        world.start_bridge("a", named.address)
        with world.feed(300):
            world.wait_progress(900, 60)
            time.sleep(4.0)
            named.kill()
            for what in ("killed", "evicted"):
                if what == "evicted":
                    evict(world, "a")  # it needs a new producer, and its membership a new connection
                begun = time.monotonic()
                world.wait_progress(600, 60)
                print(f"\n{what}: 600 records further after {time.monotonic() - begun:.1f} s")
            named.start()
            named.wait_ready()
        judge(world, "the only broker that was named is away")


def test_a_bridge_that_no_broker_answers_is_not_ready(cluster: Cluster, tmp_path: Path) -> None:
    port = choose_port(0, {0})
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        return httpx.get(f"{url}/readyz", timeout=10).status_code == 200

    def sample() -> float:
        lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("bridge_ready ")))

    with World(cluster.servers, tmp_path, partitions=6, copies=3) as world:
        world.start_bridge("a", METRICS__PORT=port)
        with world.feed(100):
            world.wait_progress(200, 60)
            wait_until(is_ready, 30, "not ready", 0.5)
            assert sample() == 1
            for node in cluster.nodes:
                node.freeze()
            begun = time.monotonic()
            wait_until(lambda: not is_ready(), 30, "still ready", 0.5)
            print(f"\nnot ready {time.monotonic() - begun:.1f} s after all brokers froze")
            assert sample() == 0
            time.sleep(10.0)
            for node in cluster.nodes:
                node.thaw()
            wait_until(is_ready, 90, "not ready again", 0.5)
        judge(world, "all brokers frozen")
