import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from streaming.bridge.batch import Batch
from streaming.bridge.pipeline import DecidedBatch, Pipeline
from streaming.errors import PublishFailed
from streaming.records import InputRecord, Outcome, ServiceDecision
from tests.e2e.faults import wait_until

GOOD = ServiceDecision(b"{}", "approve", "1")


class Stage:
    """Decides and publishes on command."""

    def __init__(self) -> None:
        self.delays: dict[int, float] = {}
        self.published: list[int] = []
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def decide(self, batch: Batch) -> list[Outcome]:
        time.sleep(self.delays.get(batch.records[0].offset, 0))
        if batch.records[0].value == b"bug":
            raise ZeroDivisionError
        return [GOOD] * len(batch)

    def publish(self, ready: Sequence[DecidedBatch]) -> None:
        self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        self.published += [batch.records[0].offset for batch, _ in ready]


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def pipeline(stage: Stage) -> Iterator[Pipeline]:
    pipeline = Pipeline(stage.decide, stage.publish, max_batches=4, max_bytes=1000, concurrency=3)
    yield pipeline
    stage.gate.set()
    pipeline.close()


def batch(offset: int, value: bytes = b"x") -> Batch:
    return Batch([InputRecord("t", 0, offset, 5, None, value)])


def large_batch(start: int) -> Batch:
    return Batch([InputRecord("t", 0, start + n, 5, None, b"x") for n in range(500)])


def test_batches_leave_in_the_order_they_came(pipeline: Pipeline, stage: Stage) -> None:
    stage.delays = {0: 0.1, 1: 0.05, 2: 0.0}
    for offset in range(3):
        pipeline.submit(batch(offset))
    assert pipeline.finish(5)
    assert stage.published == [0, 1, 2]


def test_it_is_bounded_in_batches(stage: Stage) -> None:
    stage.gate.clear()
    pipeline = Pipeline(stage.decide, stage.publish, max_batches=4, max_bytes=10**9, concurrency=9)
    for start in range(0, 4000, 1000):
        pipeline.wait_for_room(5)
        assert pipeline.has_room
        pipeline.submit(large_batch(start))
    pipeline.wait_for_room(0.1)
    assert not pipeline.has_room
    stage.gate.set()
    pipeline.wait_for_room(5)
    assert pipeline.has_room
    pipeline.close()


def test_a_small_batch_comes_in_when_the_one_before_is_being_published(
    pipeline: Pipeline, stage: Stage
) -> None:
    stage.gate.clear()
    stage.delays = {0: 0.1}
    assert pipeline.has_room
    pipeline.submit(batch(0))
    assert not pipeline.has_room
    pipeline.wait_for_room(5)
    assert pipeline.has_room  # 0 is in its transaction
    pipeline.submit(batch(1))
    pipeline.wait_for_room(0.2)
    assert not pipeline.has_room  # 1 is decided, but waits for the transaction to end
    stage.gate.set()
    pipeline.wait_for_room(5)
    assert pipeline.has_room
    assert pipeline.finish(5)
    assert stage.published == [0, 1]


def test_large_batches_are_decided_side_by_side(stage: Stage) -> None:
    stage.delays = dict.fromkeys((0, 1000, 2000), 0.3)
    pipeline = Pipeline(stage.decide, stage.publish, max_batches=9, max_bytes=10**9, concurrency=3)
    for start in (0, 1000, 2000):
        assert pipeline.has_room
        pipeline.submit(large_batch(start))
    assert not pipeline.has_room
    assert pipeline.finish(5)
    pipeline.close()


def test_it_is_bounded_in_bytes(pipeline: Pipeline, stage: Stage) -> None:
    stage.gate.clear()
    pipeline.submit(batch(0, b"x" * 1000))
    assert not pipeline.has_room
    assert len(pipeline) == 1
    assert pipeline.oldest_timestamp_ms == 5


def test_it_stops_at_a_failure_until_dropped(pipeline: Pipeline, stage: Stage) -> None:
    stage.failure = PublishFailed("x")
    pipeline.submit(batch(0))
    pipeline.submit(batch(1))
    wait_until(lambda: pipeline.failure is not None, 5, "no failure")
    assert not pipeline.finish(0.01)
    stage.failure = None
    pipeline.drop(1)
    assert pipeline.failure is None
    assert len(pipeline) == 0
    pipeline.submit(batch(2))
    assert pipeline.finish(5)
    assert stage.published == [2]


def test_an_error_while_deciding_is_a_failure_after_what_came_before(
    pipeline: Pipeline, stage: Stage
) -> None:
    pipeline.submit(batch(0))
    pipeline.submit(batch(1, b"bug"))
    pipeline.submit(batch(2))
    wait_until(lambda: pipeline.failure is not None, 5, "no failure")
    assert isinstance(pipeline.failure, ZeroDivisionError)
    assert stage.published == [0]


def test_dropping_waits_for_the_transaction_under_way(pipeline: Pipeline, stage: Stage) -> None:
    stage.gate.clear()
    pipeline.submit(batch(0))
    pipeline.submit(batch(1))
    time.sleep(0.05)
    threading.Timer(0.1, stage.gate.set).start()
    pipeline.drop(5)
    assert stage.published in ([0], [0, 1])
    assert len(pipeline) == 0


def test_dropping_does_not_wait_for_ever(pipeline: Pipeline, stage: Stage) -> None:
    stage.gate.clear()
    pipeline.submit(batch(0))
    time.sleep(0.05)
    begun = time.monotonic()
    pipeline.drop(0.1)
    assert time.monotonic() - begun < 2


def test_batches_that_wait_share_a_transaction_but_not_without_end() -> None:
    limits = []
    gate = threading.Event()

    def publish(ready: Sequence[DecidedBatch]) -> None:
        gate.wait(10)
        limits.append(sum(len(batch) for batch, _ in ready))

    pipeline = Pipeline(lambda batch: [GOOD] * len(batch), publish, 10, 10**9, 2)
    for number in range(6):
        records = [InputRecord("t", 0, number * 900 + n, 0, None, b"x") for n in range(900)]
        pipeline.submit(Batch(records))
    time.sleep(0.2)
    gate.set()
    assert pipeline.finish(5)
    pipeline.close()
    assert sum(limits) == 5400
    assert max(limits) == 1800
