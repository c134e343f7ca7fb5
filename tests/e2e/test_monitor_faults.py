# ruff: noqa: T201  # the counts are the point
"""The monitor under faults: storms of labels, a topic made again, a broker that is away, kills."""

import contextlib
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.brokers import GenuineBroker
from tests.e2e.faults import wait_until
from tests.e2e.monitor_world import MonitorWorld
from tests.monitored_stream import Sent, tell
from tests.recount import Case, assert_matches, cases, paired, window

pytestmark = [pytest.mark.timeout(170), pytest.mark.faults]
DECIDED = ("transactions", "decisions", "shadow")


@pytest.fixture
def world(genuine_broker: str, tmp_path: Path) -> Iterator[MonitorWorld]:
    with MonitorWorld(genuine_broker, tmp_path) as world:
        yield world


def story(
    world: MonitorWorld, seed: int, rows: int, offsets: dict[tuple[str, int], int] | None = None
) -> list[Sent]:
    return tell(world.topics, seed=seed, rows=rows, now_ms=int(time.time() * 1000), offsets=offsets).records


def check(document: dict[str, Any], counted: Sequence[Case]) -> None:
    """Compare every window with a recount."""
    assert document["state"] == "ok", document["sentence"]
    assert {one["role"] for one in document["releases"]} == {"champion", "challenger"}
    for one in document["releases"]:
        for figures in one["windows"].values():
            assert_matches(figures, window(counted, one["role"], one["release"], figures["from_ms"]))
    assert_matches(document["shadow"]["windows"]["since_release"], paired(counted, ("12", "13"), 0))


def test_a_storm_of_labels_counts_each_transaction_once(world: MonitorWorld) -> None:
    """Thirty labels a transaction, in any order, half of them of nobody: the newest of each holds."""
    records = story(world, 1, 600)
    now_ms = int(time.time() * 1000)
    rng = random.Random(4)
    keys = [(one.partition, one.key or b"") for one in records if one.stream == "decisions"]
    storm = []
    for number in range(18_000):
        partition, key = rng.choice(keys) if number % 2 else (number % 4, b"nobody-%d" % (number % 3000))
        verdict, origin = (
            rng.choice(("true", "false", "null")),
            rng.choice(("chargeback", "investigation", "control")),
        )
        value = b'{"transaction_id":"%b","is_fraud":%b,"labelled_at_ms":%d,"origin":"%b"}' % (
            key,
            verdict.encode(),
            now_ms - rng.randrange(10_000),
            origin.encode(),
        )
        storm.append(Sent("labels", partition, now_ms, key, value))
    rng.shuffle(storm)
    world.start()
    world.send(storm[:9000])  # before their transactions
    world.send(records)
    world.send(storm[9000:])
    everything = world.read_back()
    document = world.wait_for(len(everything))
    check(document, cases(everything))
    assert document["counts"]["labels_waiting"] == 1500 + 20  # and those that the story sends


def test_a_topic_made_again_is_read_from_its_beginning_and_old_counts_stay(world: MonitorWorld) -> None:
    world.start()
    world.send(story(world, 1, 500))
    old = world.read_back()
    world.wait_for(len(old))
    world.delete_topics(DECIDED)
    wait_until(lambda: "Missing topics" in world.readiness(), 60, "nobody is told that topics are missing")
    time.sleep(5.0)  # its questions must not make them
    assert not {world.topics[stream] for stream in DECIDED} & world.existing_topics()
    world.create_topics(DECIDED)
    world.send(story(world, 2, 800))
    new = world.read_back()
    labels = [one for one in new if one.stream == "labels"]
    old = [one for one in old if one.stream != "labels"]
    document = world.wait_for(len(old) + len(new), 90)
    check(document, [*cases([*old, *labels]), *cases(new)])
    assert set(document["counts"]["made_again"]) == set(DECIDED)


def test_records_that_retention_took_are_counted_as_missed(world: MonitorWorld) -> None:
    world.start()
    world.send(story(world, 1, 300))
    document = world.wait_for(len(world.read_back()))
    assert not document["counts"]["missed"]
    world.kill()
    offsets = {stand: end for stand, (_, end) in world.bounds().items()}
    world.send(story(world, 2, 300, dict(offsets)))
    ends = {stand: end for stand, (_, end) in world.bounds().items()}
    cut = {stand: offsets[stand] + (end - offsets[stand]) // 2 for stand, end in ends.items()}
    world.delete_records(cut)
    world.start()
    missed = sum(cut[stand] - offsets[stand] for stand in cut)
    wait_until(
        lambda: sum(world.document().get("counts", {"missed": {}})["missed"].values()) == missed,
        60,
        f"{missed} missed records are not counted",
    )
    metrics = httpx.get(f"{world.url}/metrics").text
    assert 'monitor_missed_records_total{topic="labels"}' in metrics


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_that_was_away_changes_nothing(genuine_broker: str, tmp_path: Path) -> None:
    broker = GenuineBroker(Path(os.environ["KAFKA_HOME"]), tmp_path / "kafka")
    broker.start()
    try:
        with MonitorWorld(broker.address, tmp_path) as world:
            world.start()
            offsets: dict[tuple[str, int], int] = {}
            world.send(story(world, 1, 400, offsets))
            before = world.wait_for(len(world.read_back()))
            broker.kill()
            time.sleep(3.0)  # some looks at the broker are in vain
            assert httpx.get(f"{world.url}/livez").status_code == 200
            assert world.document()["counts"]["records"] == before["counts"]["records"]
            broker.start()
            world.send(story(world, 2, 400, offsets))
            everything = world.read_back()
            check(world.wait_for(len(everything), 90), cases(everything))
    finally:
        broker.kill()


@pytest.mark.e2e_long
@pytest.mark.timeout(1200)
def test_twenty_kills_at_random_under_a_stream(world: MonitorWorld) -> None:
    rng = random.Random(11)
    world.start()
    offsets: dict[tuple[str, int], int] = {}
    for part in range(20):
        world.send(story(world, part, 1500, offsets))
        time.sleep(rng.uniform(0.0, 2.0))
        world.kill()
        world.start()
        with contextlib.suppress(AssertionError):
            world.wait_for(rng.randrange(1, 4000), 3)
    everything = world.read_back()
    document = world.wait_for(len(everything), 300)
    check(document, cases(everything))
    print(f"{len(everything):,} records, 20 kills: every figure equal to a recount")
