"""Batches between fetched and committed: decided side by side, published in order, bounded.

While one batch is being classified the next is fetched and the previous committed. Batches that
are ready when a transaction begins share it, so transactions grow as the load does.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from streaming.bridge.batch import Batch
from streaming.bridge.decider import Dropped
from streaming.daemon_pool import DaemonPool
from streaming.records import DecidedOutcome

Decide = Callable[[Batch], list[DecidedOutcome]]
DecidedBatch = tuple[Batch, list[DecidedOutcome]]
Publish = Callable[[Sequence[DecidedBatch]], None]

# Beyond 2000 records a transaction only its latency grows.
MAX_TRANSACTION_RECORDS = 2000
# A request of this many records is large: several of them are sent side by side.
LARGE_RECORDS = 200


class Pipeline:
    """Takes batches in, publishes them in the same order, stops at the first failure.

    Parameters
    ----------
    decide : callable
        Batch to outcomes; runs on several threads, raises `Dropped` when the batch is dropped.
    publish : callable
        Publishes decided batches in one transaction; runs on one thread.
    max_batches, max_bytes : int
        Limits of what is inside.
    concurrency : int
        Large batches decided at the same time.
    large_records : int
        From how many records on a batch is large.
    """

    def __init__(
        self,
        decide: Decide,
        publish: Publish,
        max_batches: int,
        max_bytes: int,
        concurrency: int,
        large_records: int = LARGE_RECORDS,
    ) -> None:
        self._decide = decide
        self._publish = publish
        self._max_batches = max_batches
        self._max_bytes = max_bytes
        self._queue: deque[tuple[Batch, Future[list[DecidedOutcome]]]] = deque()
        self._size = 0
        self._undecided = 0  # batches
        self._is_large = False
        self._concurrency = concurrency
        self._large_records = large_records
        self._publishing = 0  # batches at the head of the queue, in the transaction under way
        self._is_closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._deciders = DaemonPool(concurrency, "decider")
        self._publisher = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._publisher.start()

    @property
    def failure(self) -> BaseException | None:
        """What stopped the pipeline, until `drop` clears it."""
        return self._failure

    @property
    def has_room(self) -> bool:
        """Whether another batch may come in: there is space for it, and it would not only wait.

        A batch that waits would have been larger, had it been fetched later. Many small requests are what
        makes a busy machine late, so a small batch comes in when the one before goes into its transaction:
        one request for each transaction. Large ones are decided side by side.
        """
        if len(self._queue) >= self._max_batches or self._size >= self._max_bytes:
            return False
        if self._is_large:
            return self._undecided < self._concurrency
        return len(self._queue) == self._publishing

    @property
    def oldest_timestamp_ms(self) -> int | None:
        """When the oldest record inside was produced, milliseconds since 1970."""
        with self._changed:
            return self._queue[0][0].records[0].timestamp_ms if self._queue else None

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, batch: Batch) -> None:
        """Take a batch in; the caller looks at `has_room` and `failure` before."""
        with self._changed:
            future = self._deciders.submit(self._decide, batch)
            self._queue.append((batch, future))
            self._size += batch.size
            self._undecided += 1
            self._is_large = len(batch) >= self._large_records
        future.add_done_callback(self._note_decided)

    def wait_for_room(self, timeout_s: float) -> None:
        """Wait until there is room or a failure."""
        with self._changed:
            self._changed.wait_for(lambda: self.has_room or self._failure is not None, timeout_s)

    def finish(self, timeout_s: float) -> bool:
        """Wait until everything inside is committed; return whether it is."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queue or self._failure is not None, timeout_s)
            return not self._queue

    def drop(self, timeout_s: float) -> None:
        """Forget everything inside and the failure.

        Parameters
        ----------
        timeout_s : float
            How long to wait for the publisher to let go; its calls have deadlines of their own.
        """
        with self._changed:
            self._failure = self._failure or Dropped()  # nothing further is published
            for batch, future in self._queue:
                batch.dropped.set()
                future.cancel()
            self._changed.wait_for(lambda: not self._publishing, timeout_s)
            self._queue.clear()
            self._size = 0
            self._failure = None
            self._changed.notify_all()

    def close(self) -> None:
        """Drop what is left and end the threads."""
        self.drop(timeout_s=0)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._deciders.end()

    def _note_decided(self, _: Future[list[DecidedOutcome]]) -> None:
        with self._changed:
            self._undecided -= 1
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._can_publish())
                if self._is_closed:
                    return
                ready = self._take_ready()
            if ready:
                self._publish_ready(ready)

    def _can_publish(self) -> bool:
        return bool(self._queue) and self._failure is None and self._queue[0][1].done()

    def _take_ready(self) -> list[DecidedBatch]:
        ready: list[DecidedBatch] = []
        records = 0
        for batch, future in self._queue:
            if not future.done() or (ready and records + len(batch) > MAX_TRANSACTION_RECORDS):
                break
            error = None if future.cancelled() else future.exception()
            if future.cancelled() or error is not None:
                if not ready:
                    self._fail(error or Dropped())
                break
            ready.append((batch, future.result()))
            records += len(batch)
        self._publishing = len(ready)
        self._changed.notify_all()
        return ready

    def _publish_ready(self, ready: list[DecidedBatch]) -> None:
        failure: BaseException | None = None
        try:
            self._publish(ready)
        except BaseException as error:
            failure = error
        with self._changed:
            self._publishing = 0
            if failure is not None:
                self._fail(failure)
            else:
                for batch, _ in ready:
                    if self._queue and self._queue[0][0] is batch:
                        self._queue.popleft()
                        self._size -= batch.size
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._changed.notify_all()
