import pytest

from streaming.bridge.fetch_timing import LONGEST_S, FetchTiming


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cadence(clock: Clock) -> FetchTiming:
    return FetchTiming(clock)


def learn(cadence: FetchTiming, clock: Clock, publish_s: float, prepare_s: float) -> None:
    for _ in range(100):
        cadence.publishing()
        clock.now += publish_s
        cadence.published()
        since = clock.now
        clock.now += prepare_s
        cadence.prepared(since)


def test_nothing_waits_before_anything_is_learnt(cadence: FetchTiming) -> None:
    cadence.publishing()
    assert cadence.wait_s == 0


def test_a_fetch_begins_so_that_its_batch_is_decided_when_the_transaction_ends(
    cadence: FetchTiming, clock: Clock
) -> None:
    learn(cadence, clock, publish_s=0.020, prepare_s=0.012)
    cadence.publishing()
    assert cadence.wait_s == pytest.approx(0.008, abs=1e-4)
    clock.now += 0.005
    assert cadence.wait_s == pytest.approx(0.003, abs=1e-4)
    clock.now += 0.005
    assert cadence.wait_s == 0


def test_nothing_waits_when_nothing_is_published(cadence: FetchTiming, clock: Clock) -> None:
    learn(cadence, clock, publish_s=0.020, prepare_s=0.001)
    assert cadence.wait_s == 0


def test_nothing_waits_when_deciding_takes_longer_than_publishing(cadence: FetchTiming, clock: Clock) -> None:
    learn(cadence, clock, publish_s=0.010, prepare_s=0.030)
    cadence.publishing()
    assert cadence.wait_s == 0


def test_a_standstill_is_not_taken_for_the_usual_time(cadence: FetchTiming, clock: Clock) -> None:
    learn(cadence, clock, publish_s=0.010, prepare_s=0.0)
    learn(cadence, clock, publish_s=60.0, prepare_s=0.0)
    cadence.publishing()
    assert cadence.wait_s <= LONGEST_S
