"""How long the stream stands after the kill of one of three brokers.

Each broker is killed in turn under a steady load, and started again. The broker's own time of each decision
(LogAppendTime) tells the longest gap. A partition whose leader was killed has none until the controller
notices (``broker.session.timeout.ms``, 9 s by default) and has chosen another: no client can be quicker. That
time is printed beside the standstill; it is longer by an election where the killed node was also the active
controller, whose successor counts the session from its own start.
"""

import argparse
import itertools
import json
import os
import re
import tempfile
import time
from datetime import datetime
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

from tests.e2e.cluster import Cluster, Node, open_cluster
from tests.e2e.faults import World

PARTITIONS, RATE, SETTLE_S, WATCH_S = 6, 300, 5.0, 18.0


def append_times(world: World) -> dict[int, list[float]]:
    """Return when the decisions of each partition were written, by the brokers' clock, seconds."""
    places = [TopicPartition(world.output, number) for number in range(PARTITIONS)]
    consumer = KafkaConsumer(bootstrap_servers=world.servers, isolation_level="read_committed")
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    found: dict[int, list[float]] = {place.partition: [] for place in places}
    while any(consumer.position(place) < ends[place] for place in places):
        for place, records in consumer.poll(500).items():
            found[place.partition] += [record.timestamp / 1000 for record in records]
    consumer.close()
    return found


def longest_gap(times: list[float], since: float, until: float) -> float:
    """Return the longest time without a record within a window, seconds."""
    inside = sorted([since, *(at for at in times if since < at < until), until])
    return max(later - earlier for earlier, later in itertools.pairwise(inside))


def leaderless_s(cluster: Cluster, node: Node, at: float) -> float:
    """Return how long a killed broker kept its partitions, by the logs of the others, seconds."""
    pattern = re.compile(rf"^\[([^]]+)\] INFO .*Fencing broker {node.number} at epoch", re.MULTILINE)
    logs = [other.process.log.read_text() for other in cluster.controllers if other is not node]
    texts = [text for log in logs for text in pattern.findall(log)]
    times = [datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp() for text in texts]
    return min(time for time in times if time > at) - at


def kill_in_turn(cluster: Cluster, world: World) -> list[tuple[Node, float, float]]:
    """Kill each broker under load and start it again; return when, and how long it kept its partitions."""
    kills = []
    for node in cluster.nodes:
        time.sleep(SETTLE_S)
        at = time.time()
        node.kill()
        time.sleep(WATCH_S)
        kills.append((node, at, leaderless_s(cluster, node, at)))
        node.start()
        node.wait_ready()
        time.sleep(6.0)
    return kills


def main() -> None:
    """Print a line for each kill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--session-ms", type=int, default=3000, help="broker.session.timeout.ms")
    parser.add_argument(
        "--own-controller",
        action="store_true",
        help="a fourth node is the controller, none of the killed ones",
    )
    parser.add_argument("--bridges", type=int, default=1)
    options = parser.parse_args()
    if "KAFKA_HOME" not in os.environ:
        parser.error("set KAFKA_HOME to the folder of an unpacked Kafka distribution")
    folder = Path(tempfile.mkdtemp())
    properties = {"broker_session_timeout_ms": str(options.session_ms)}
    configs = {"message.timestamp.type": "LogAppendTime"}
    with (
        open_cluster(folder / "kafka", own_controller=options.own_controller, **properties) as cluster,
        World(cluster.servers, folder, PARTITIONS, 3, configs) as world,
    ):
        for number in range(options.bridges):
            world.start_bridge(f"b{number}")
        with world.feed(RATE, bad_share=0.0):
            world.wait_progress(500, 90)
            kills = kill_in_turn(cluster, world)
        world.wait_drained(120)
        times = append_times(world)
        report = world.report()
    everything = [at for ones in times.values() for at in ones]
    for node, at, leaderless in kills:
        gaps = [longest_gap(ones, at - 1, at + WATCH_S - 2) for ones in times.values()]
        result = {
            "killed": node.number,
            "without_leaders_s": round(leaderless, 1),
            "all_partitions_s": round(longest_gap(everything, at - 1, at + WATCH_S - 2), 1),
            "each_partition_s": [round(gap, 1) for gap in gaps],
        }
        print(json.dumps(result))
    print(report, f"logs: {folder}")


if __name__ == "__main__":
    main()
