"""Gathering requests: order, bounds, deadlines, and no harm to neighbours."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from bentos.classify.batching import Batcher, Decide
from bentos.errors import OverloadedError, RunnerUnavailableError, ScoringFailedError
from bentos.settings.sections import GatewaySettings


class Runners:
    """Doubles every number; can be held, slow or broken."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.requests: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def decide(self, transactions: Sequence[int], requests: int, queue_s: float) -> list[int]:
        assert queue_s >= 0
        self.batches.append(list(transactions))
        self.requests.append(requests)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [2 * number for number in transactions]


class OneRelease(Batcher):
    """A batcher all of whose requests one release decides."""

    def __init__(self, runners: Runners, settings: GatewaySettings) -> None:
        super().__init__(settings)
        self._release = runners.decide

    async def submit(self, transactions: Sequence[Any], decide: Decide | None = None) -> Sequence[Any]:
        return await super().submit(transactions, decide or self._release)


def batcher(runners: Runners, **settings: float) -> OneRelease:
    return OneRelease(runners, GatewaySettings(**settings))


async def test_requests_for_two_releases_never_share_a_batch() -> None:
    old, new = Runners(), Runners()
    old.gate.clear()
    batched, begun = batcher(old, max_batches_in_flight=1), []
    for decide in (old.decide, new.decide, new.decide, old.decide):
        begun.append(asyncio.create_task(batched.submit([len(begun), 9], decide)))
        await asyncio.sleep(0.01)
    old.gate.set()
    answers = await asyncio.gather(*begun)
    assert answers == [[0, 18], [2, 18], [4, 18], [6, 18]]
    assert old.batches == [[0, 9], [3, 9]]
    assert new.batches == [[1, 9, 2, 9]]


async def test_a_long_list_is_decided_whole_by_the_release_it_came_to() -> None:
    old, new = Runners(), Runners()
    batched = batcher(old, max_batch_rows=10, max_batches_in_flight=1)
    long = asyncio.create_task(batched.submit(range(95), old.decide))
    await asyncio.sleep(0)
    await batched.submit([1], new.decide)
    await long
    assert sum(map(len, old.batches)) == 95
    assert new.batches == [[1]]


async def test_every_request_gets_its_own_answers_in_order() -> None:
    runners = Runners()
    batched = batcher(runners)
    asked = [[number, number + 1000] for number in range(100)]
    answers = await asyncio.gather(*(batched.submit(numbers) for numbers in asked))
    assert answers == [[2 * number for number in numbers] for numbers in asked]


async def test_concurrent_requests_leave_together() -> None:
    runners = Runners()
    batched = batcher(runners)
    await asyncio.gather(*(batched.submit([number]) for number in range(64)))
    assert len(runners.batches) == 1
    assert runners.requests == [64]


async def test_a_lone_request_does_not_wait() -> None:
    runners = Runners()
    assert await asyncio.wait_for(batcher(runners).submit([1]), 0.1) == [2]


async def test_a_long_list_goes_in_parts_and_comes_back_whole() -> None:
    runners = Runners()
    batched = batcher(runners, max_batch_rows=10, max_batches_in_flight=2)
    assert await batched.submit(list(range(95))) == [2 * number for number in range(95)]
    assert max(map(len, runners.batches)) == 10


async def test_only_so_many_calls_are_under_way() -> None:
    runners = Runners()
    runners.gate.clear()
    batched = batcher(runners, max_batches_in_flight=2, max_batch_rows=1)
    waiting = [asyncio.ensure_future(batched.submit([number])) for number in range(10)]
    await asyncio.sleep(0.01)
    assert (len(runners.batches), batched.in_flight, batched.queued_rows) == (2, 2, 8)
    runners.gate.set()
    assert await asyncio.gather(*waiting) == [[2 * number] for number in range(10)]
    assert (batched.in_flight, batched.queued_rows) == (0, 0)


async def test_a_full_queue_refuses_at_once_and_loses_nothing() -> None:
    runners = Runners()
    runners.gate.clear()
    batched = batcher(runners, max_batches_in_flight=1, max_batch_rows=1, max_queued_rows=3)
    waiting = [asyncio.ensure_future(batched.submit([0]))]
    await asyncio.sleep(0.01)
    waiting += [asyncio.ensure_future(batched.submit([number])) for number in range(1, 4)]
    await asyncio.sleep(0.01)
    with pytest.raises(OverloadedError):
        await asyncio.wait_for(batched.submit([9]), 0.05)
    runners.gate.set()
    assert await asyncio.gather(*waiting) == [[0], [2], [4], [6]]


async def test_stuck_runners_are_an_error_within_the_deadline_even_for_those_behind() -> None:
    runners = Runners()
    runners.gate.clear()
    batched = batcher(runners, max_batches_in_flight=1, max_batch_rows=1, deadline_ms=100)
    loop = asyncio.get_running_loop()
    started = loop.time()
    answers = await asyncio.gather(*(batched.submit([n]) for n in range(5)), return_exceptions=True)
    assert all(isinstance(answer, RunnerUnavailableError) for answer in answers)
    assert loop.time() - started < 1.0
    runners.gate.set()
    assert await batched.submit([1]) == [2]


async def test_a_stall_of_the_gateway_is_not_taken_for_silence_of_the_runners() -> None:
    """A loop that was late runs its timers first: answers that lay there were taken for missing ones."""
    runners = Runners()
    runners.gate.clear()
    batched = batcher(runners, max_batches_in_flight=1, deadline_ms=400)
    asking = [asyncio.ensure_future(batched.submit([number])) for number in range(3)]
    async with asyncio.timeout(60):
        while not runners.batches:
            await asyncio.sleep(0)
    answer = threading.Timer(0.1, asyncio.get_running_loop().call_soon_threadsafe, [runners.gate.set])
    answer.start()
    time.sleep(1.0)  # the stall, well over the deadline
    assert await asyncio.gather(*asking) == [[0], [2], [4]]
    answer.join()


async def test_a_loop_that_is_late_all_the_time_waits_for_no_runner_for_ever() -> None:
    runners = Runners()
    runners.gate.clear()
    asking = asyncio.ensure_future(batcher(runners, deadline_ms=100).submit([1]))
    async with asyncio.timeout(60):
        while not asking.done():
            time.sleep(0.02)
            await asyncio.sleep(0)
    with pytest.raises(RunnerUnavailableError):
        await asking


async def test_a_failed_call_fails_its_requests_and_no_other() -> None:
    runners = Runners()
    batched = batcher(runners)
    runners.error = RunnerUnavailableError("down")
    with pytest.raises(RunnerUnavailableError):
        await batched.submit([1])
    runners.error = None
    assert await batched.submit([1]) == [2]


@pytest.mark.parametrize("error", [ValueError("a defect"), ScoringFailedError("not a score")])
async def test_a_defect_differs_from_a_runner_that_is_away(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    runners = Runners()
    runners.error = error
    with pytest.raises(ScoringFailedError):
        await batcher(runners).submit([1])


async def test_a_caller_who_leaves_harms_no_other() -> None:
    runners = Runners()
    runners.gate.clear()
    batched = batcher(runners)
    leaving, staying = asyncio.ensure_future(batched.submit([1])), asyncio.ensure_future(batched.submit([2]))
    await asyncio.sleep(0.01)
    leaving.cancel()
    runners.gate.set()
    assert await staying == [4]
