"""Gathers the rows of concurrent requests into one call to the runners, in bounded memory and time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bentos.classify.deadlines import Deadlines
from bentos.errors import OverloadedError, RequestError, RunnerUnavailableError, ScoringFailedError
from bentos.settings.sections import GatewaySettings


class Decide(Protocol):
    """Answers a batch: one decision per transaction, in order."""

    async def __call__(self, transactions: Sequence[Any], requests: int, queue_s: float) -> Sequence[Any]:
        """Return one decision per transaction; the rest is for the metrics."""


@dataclass(slots=True)
class _Pending:
    transactions: Sequence[Any]
    decide: Decide
    answer: asyncio.Future[Sequence[Any]]
    since: float
    end: float


class Batcher:
    """Micro-batching with a bounded number of batches under way and of rows pending.

    A batch is sent as soon as fewer than ``max_batches_in_flight`` are under way, so a lone request does not
    wait. Requests that arrive while that many are under way are sent together, where one release decides
    them.

    Parameters
    ----------
    settings : GatewaySettings
        Sizes and the deadline.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._deadlines = Deadlines(settings.deadline_ms / 1000)
        self._queue: deque[_Pending] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._is_flush_scheduled = False
        self._seen_rows = 0
        self.queued_rows = 0

    async def submit(self, transactions: Sequence[Any], decide: Decide) -> Sequence[Any]:
        """Return one decision per transaction, in order, all by `decide`.

        Parameters
        ----------
        transactions : sequence
            As decoded.
        decide : Decide
            Called with up to ``max_batch_rows`` transactions at once.

        Raises
        ------
        OverloadedError
            If the queue has no room; the runners were not called.
        RunnerUnavailableError
            If a runner did not answer, or not in time.
        ScoringFailedError
            If code or model is at fault.
        """
        limit = self._settings.max_batch_rows
        if self.queued_rows and self.queued_rows + len(transactions) > self._settings.max_queued_rows:
            raise OverloadedError("Too many transactions are waiting.", self._settings.retry_after_s)
        if len(transactions) <= limit:
            return await self._enqueue(transactions, decide)
        parts = [transactions[start : start + limit] for start in range(0, len(transactions), limit)]
        answers = await asyncio.gather(*(self._enqueue(part, decide) for part in parts))
        return [decision for answer in answers for decision in answer]

    def _enqueue(self, transactions: Sequence[Any], decide: Decide) -> asyncio.Future[Sequence[Any]]:
        loop = asyncio.get_running_loop()
        end = self._deadlines.end_of(loop)
        pending = _Pending(transactions, decide, loop.create_future(), loop.time(), end)
        self._queue.append(pending)
        self.queued_rows += len(transactions)
        self._schedule_flush(loop)
        return pending.answer

    def _schedule_flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_flush_scheduled and len(self._running) < self._settings.max_batches_in_flight:
            self._is_flush_scheduled = True
            self._seen_rows = 0
            loop.call_soon(self._flush_when_quiet, loop)

    def _flush_when_quiet(self, loop: asyncio.AbstractEventLoop) -> None:
        """Flush once a turn of the event loop has brought no more rows, or `gather_rows` are pending.

        A call to the runners costs as much as ten requests. Under load this gathers them; otherwise it costs
        one turn of the loop, some 10 µs.
        """
        if self._seen_rows < self.queued_rows < self._settings.gather_rows:
            self._seen_rows = self.queued_rows
            loop.call_soon(self._flush_when_quiet, loop)
            return
        self._is_flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        while self._queue and len(self._running) < self._settings.max_batches_in_flight:
            task = asyncio.get_running_loop().create_task(self._run(self._next_batch()))
            self._running.add(task)
            task.add_done_callback(self._on_done)

    def _next_batch(self) -> list[_Pending]:
        first = self._queue.popleft()
        batch, rows = [first], len(first.transactions)
        # A batch is decided by one release.
        while self._queue and self._queue[0].decide == first.decide:
            more = len(self._queue[0].transactions)
            if rows + more > self._settings.max_batch_rows:
                break
            batch.append(self._queue.popleft())
            rows += more
        self.queued_rows -= rows
        return batch

    @property
    def in_flight(self) -> int:
        """Batches under way."""
        return len(self._running)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._queue:
            self._schedule_flush(asyncio.get_running_loop())

    async def _run(self, batch: list[_Pending]) -> None:
        waited_s = asyncio.get_running_loop().time() - batch[0].since
        transactions = (
            batch[0].transactions
            if len(batch) == 1
            else [row for pending in batch for row in pending.transactions]
        )
        try:
            # A request that waited behind a stuck call has used up its time and fails with that call.
            with self._deadlines.limit(batch[0].end):
                decisions = await batch[0].decide(transactions, len(batch), waited_s)
        except TimeoutError:
            self._fail(batch, "The runners did not answer in time.")
        except ScoringFailedError as error:
            self._fail(batch, error.message, ScoringFailedError)
        except RequestError as error:
            self._fail(batch, error.message)
        except Exception:
            self._fail(batch, "Scoring failed.", ScoringFailedError)
            raise
        else:
            _distribute(batch, decisions)

    def _fail(
        self,
        batch: list[_Pending],
        message: str,
        error: type[RunnerUnavailableError] = RunnerUnavailableError,
    ) -> None:
        for pending in batch:
            if not pending.answer.done():
                pending.answer.set_exception(error(message, self._settings.retry_after_s))


def _distribute(batch: list[_Pending], decisions: Sequence[Any]) -> None:
    start = 0
    for pending in batch:
        end = start + len(pending.transactions)
        if not pending.answer.done():  # the caller may have hung up
            pending.answer.set_result(decisions[start:end])
        start = end
