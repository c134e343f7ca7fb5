# ruff: noqa: T201  # the counts are the point
"""The bridge under every fault of issue 6, at length: `make e2e`. Counts are printed."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.brokers import GenuineBroker
from tests.e2e.faults import World, wait_until

pytestmark = [
    pytest.mark.e2e_long,
    pytest.mark.timeout(1500),
    # kafka-python's clients of the test itself leave sockets behind when the broker refuses them.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KILLS = 100
FROZEN_S = 180.0


@pytest.fixture
def own_broker(genuine_broker: str, tmp_path: Path) -> Iterator[GenuineBroker]:
    """Yield a broker that a test may kill."""
    broker = GenuineBroker(Path(os.environ["KAFKA_HOME"]), tmp_path / "kafka")
    broker.start()
    try:
        yield broker
    finally:
        os.killpg(broker.process.pid, signal.SIGCONT)
        broker.kill()


def judge(world: World, what: str) -> None:
    world.wait_drained(180)
    report = world.report()
    print(f"\n{what}: {report}")
    assert report.is_clean, report


def test_a_hundred_kills(genuine_broker: str, tmp_path: Path) -> None:
    rng = random.Random(2)
    names = ("a", "b", "c")
    back: list[float] = []
    with World(genuine_broker, tmp_path) as world:
        for name in names:
            world.start_bridge(name)
        with world.feed(400):
            world.wait_progress(400, 60)
            while world.kills < KILLS:
                time.sleep(rng.uniform(0.1, 3.0))
                name = rng.choice(names)
                world.kill_bridge(name)
                world.start_bridge(name)
                if world.kills % 20 == 0:
                    begun = time.monotonic()
                    world.wait_progress(400, 60)
                    back.append(time.monotonic() - begun)
        judge(world, f"{world.kills} kill -9 of bridges, progress again within {max(back):.1f} s")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "SIGSTOP"])
def test_the_broker_goes_and_comes_back(how: str, own_broker: GenuineBroker, tmp_path: Path) -> None:
    with World(own_broker.address, tmp_path) as world:
        world.start_bridge("a")
        world.start_bridge("b")
        with world.feed(300):
            world.wait_progress(300, 60)
            for _ in range(1 if how == "SIGSTOP" else 3):
                _interrupt(own_broker, how)
                begun = time.monotonic()
                world.wait_progress(300, 120)
                print(
                    f"\n{how}: 300 records further {time.monotonic() - begun:.1f} s after the broker was back"
                )
        judge(world, f"broker {how}")


def test_sigterm_is_obeyed_though_the_broker_is_frozen(own_broker: GenuineBroker, tmp_path: Path) -> None:
    with World(own_broker.address, tmp_path) as world:
        bridge = world.start_bridge("a")
        with world.feed(300):
            world.wait_progress(300, 60)
            os.killpg(own_broker.process.pid, signal.SIGSTOP)
            time.sleep(3.0)
            begun = time.monotonic()
            os.kill(bridge.pid, signal.SIGTERM)
            wait_until(lambda: bridge.poll() is not None, 15, "the bridge did not end")
            print(f"\nSIGTERM with the broker frozen: ended after {time.monotonic() - begun:.1f} s")
            assert time.monotonic() - begun < 10
            assert bridge.poll() == 0
            os.killpg(own_broker.process.pid, signal.SIGCONT)
            world.start_bridge("a")
            world.wait_progress(300, 60)
        judge(world, "SIGTERM while the broker was frozen")


def _interrupt(broker: GenuineBroker, how: str) -> None:
    if how == "SIGSTOP":
        os.killpg(broker.process.pid, signal.SIGSTOP)
        time.sleep(FROZEN_S)
        os.killpg(broker.process.pid, signal.SIGCONT)
        return
    if how == "SIGTERM":
        broker.stop()
    else:
        broker.kill()
    time.sleep(5.0)
    broker.start()


def test_every_way_a_service_can_fail(genuine_broker: str, tmp_path: Path) -> None:
    modes = [("status", code) for code in (429, 500, 502, 503, 504)]
    modes += [("slow", 1.0), ("hang", None), ("reset", None), ("half", None), ("drip", None)]
    modes += [("garbage", None), ("short", None), ("swap", None), ("unnamed", None), ("too_large", 10)]
    with World(genuine_broker, tmp_path) as world:
        world.start_bridge("a")
        with world.feed(200):
            world.wait_progress(200, 60)
            for mode, value in modes:
                world.script(mode, value)
                time.sleep(5.0)
                world.script("ok")
                world.wait_progress(100, 60)
            for _ in range(3):
                world.service.kill()
                time.sleep(4.0)
                world.start_service()
                world.wait_progress(100, 60)
        judge(world, f"{len(modes)} ways of the service to fail, 3 kill -9 of it")


def test_one_three_one_bridges(genuine_broker: str, tmp_path: Path) -> None:
    with World(genuine_broker, tmp_path) as world:
        world.start_bridge("a")
        with world.feed(300):
            world.wait_progress(300, 60)
            for _ in range(3):
                world.start_bridge("b")
                world.start_bridge("c")
                world.wait_progress(3000, 60)
                for name in ("b", "c"):
                    world.bridges[name].stop()
                    assert world.bridges[name].poll() == 0
                world.wait_progress(1000, 60)
        judge(world, "1 to 3 to 1 bridges, three times")


def test_bridges_frozen_beyond_their_session(genuine_broker: str, tmp_path: Path) -> None:
    with World(genuine_broker, tmp_path) as world:
        world.start_bridge("a")
        world.start_bridge("b")
        with world.feed(300):
            world.wait_progress(300, 60)
            for name in ("a", "b", "a"):
                os.killpg(world.bridges[name].pid, signal.SIGSTOP)
                time.sleep(30.0)  # beyond its session and its transaction
                os.killpg(world.bridges[name].pid, signal.SIGCONT)
                world.wait_progress(1000, 60)
        judge(world, "3 times a bridge frozen for 30 s")


def test_bad_records_among_good_ones_while_everything_dies(genuine_broker: str, tmp_path: Path) -> None:
    rng = random.Random(3)
    with World(genuine_broker, tmp_path) as world:
        for name in ("a", "b"):
            world.start_bridge(name)
        with world.feed(200, bad_share=0.5):
            world.wait_progress(200, 60)
            for _ in range(15):
                time.sleep(rng.uniform(0.2, 2.0))
                name = rng.choice(("a", "b"))
                world.kill_bridge(name)
                world.start_bridge(name)
                world.script(rng.choice(("ok", "unnamed", "ok")))
            world.script("ok")
        judge(world, f"half of the records bad, {world.kills} kill -9")
