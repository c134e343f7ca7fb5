"""The loop: consume, classify, produce, commit; and what it does when one of them fails."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from streaming.bridge.decider import Dropped
from streaming.bridge.group_monitor import Watch
from streaming.bridge.pipeline import Pipeline
from streaming.errors import (
    BrokerUnavailable,
    Fenced,
    MessageTooLarge,
    NotInGroup,
    PublishFailed,
)
from streaming.observability.metrics import Metrics
from streaming.ports import Guard, Listener, Sink, Source
from streaming.records import InputRecord, split
from streaming.scoring.backoff import Backoff
from streaming.settings.sections import BridgeSettings, ServiceSettings

log = structlog.get_logger()

# Between two looks at a full pipeline the consumer is polled, so that rebalances are answered.
KEEP_ALIVE_S = 0.5
# Fenced this often within this time, somebody else must be using the instance id.
RIVAL_FENCINGS = 3
RIVAL_WINDOW_S = 60.0
LAG_EVERY_S = 1.0


@dataclass(frozen=True)
class Parts:
    """What a bridge is made of; `__main__` builds the real ones, tests build fakes."""

    source: Source
    sink: Sink
    guard: Guard
    watch: Watch
    pipeline: Pipeline
    metrics: Metrics
    refresh_limits: Callable[[], None]


class Bridge(Listener):
    """Decides every record of the input topic exactly once.

    Parameters
    ----------
    parts : Parts
    bridge : BridgeSettings
    service : ServiceSettings
    """

    def __init__(self, parts: Parts, bridge: BridgeSettings, service: ServiceSettings) -> None:
        self._source = parts.source
        self._sink = parts.sink
        self._guard = parts.guard
        self._watch = parts.watch
        self._pipeline = parts.pipeline
        self._metrics = parts.metrics
        self._refresh_limits = parts.refresh_limits
        self._bridge = bridge
        self._service = service
        self._stopping = threading.Event()
        self._backoff = Backoff(0.2, 2.0)
        self._fencings: list[float] = []
        self._must_recover = False
        self._recoveries = 0
        self._recovered_at = 0.0
        self._fetched_at = 0.0
        self._lag_at = 0.0
        self._paused_since: float | None = None

    def stop(self) -> None:
        """Ask the loop to finish what is in flight and to end; signal handlers may call it."""
        self._stopping.set()

    def run(self) -> None:
        """Work until stopped.

        Raises
        ------
        StreamingError
            When a person has to look: refused by service or broker, or the instance id was taken.
        """
        try:
            # Aborts what a predecessor left open, so its offsets settle before they are read.
            self._start_sink()
            self._source.start(self)
            self._watch.start()
            while not self._stopping.is_set():
                self._step()
            self._drain()
        finally:
            self._close()

    def _start_sink(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            attempt += 1
            try:
                self._sink.start()
                return
            except (BrokerUnavailable, PublishFailed) as error:
                log.warning("producer_not_started", error=str(error), attempt=attempt)
                self._backoff.wait(attempt, self._stopping)

    def _step(self) -> None:
        self._metrics.turned(self._pipeline)
        if self._pipeline.failure is not None or self._must_recover:
            self._recover()
        elif self._pipeline.has_room:
            self._resume()
            self._gather()
            self._take(self._bridge.poll_timeout_ms)
        else:
            self._pipeline.wait_for_room(KEEP_ALIVE_S)
            if not self._pipeline.has_room:
                self._keep_alive()
        self._look_around()

    def _gather(self) -> None:
        # A transaction costs the broker the same whatever it holds: fewer leave a busy machine in time.
        soonest_s = self._fetched_at + self._bridge.fetch_interval_ms / 1000 - time.monotonic()
        self._stopping.wait(max(0.0, soonest_s, self._pipeline.fetch_in_s))
        self._fetched_at = time.monotonic()

    def _take(self, timeout_ms: int) -> None:
        begun = time.monotonic()
        records = self._poll(timeout_ms, self._service.max_batch_records)
        if self._pipeline.failure is not None or self._must_recover:
            return  # fetched beyond the place to go back to: it will be fetched again
        if records:
            self._metrics.spent("fetch", time.monotonic() - begun)
        for batch in split(records, self._service.max_batch_records, self._service.max_batch_bytes):
            self._pipeline.submit(batch, begun)

    def _poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        try:
            return self._source.poll(timeout_ms, max_records)
        except NotInGroup as error:
            log.warning("evicted", error=str(error))
            self._abandon()
            return []

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if self._paused_since is not None:
            self._metrics.paused(now - self._paused_since)  # as it passes: a pause may last for hours
        self._paused_since = now
        self._source.pause()
        if self._poll(0, 1):
            # Partitions that came during this very poll are not paused yet: what is thrown away here must
            # be fetched again.
            self._must_recover = True

    def _resume(self) -> None:
        if self._paused_since is not None:
            self._metrics.paused(time.monotonic() - self._paused_since)
            self._paused_since = None
            self._source.resume()

    def _recover(self) -> None:
        """Go back to what is committed, with a new producer."""
        failure = self._pipeline.failure
        self._raise_if_hopeless(failure)
        self._must_recover = True
        self._pipeline.drop(self._bridge.transaction_deadline_s + 1)
        self._slow_down()
        if failure is not None:
            log.warning("transaction_abandoned", error=str(failure) or type(failure).__name__)
            self._metrics.aborted()
        if isinstance(failure, MessageTooLarge):
            self._refresh_limits()
        attempt = 0
        while not self._stopping.is_set():
            attempt += 1
            self._metrics.turned(self._pipeline)
            try:
                self._sink.start()
                self._source.rewind()
            except (BrokerUnavailable, PublishFailed) as error:
                log.warning("broker_unavailable", error=str(error), attempt=attempt)
                self._keep_alive()
                self._backoff.wait(attempt, self._stopping)
            else:
                self._must_recover = False
                return

    def _slow_down(self) -> None:
        # A topic that refuses every transaction must not be hammered.
        if self._metrics.last_progress > self._recovered_at:
            self._recoveries = 0
        if self._recoveries:
            self._backoff.wait(self._recoveries, self._stopping)
        self._recoveries += 1
        self._recovered_at = time.monotonic()

    def _raise_if_hopeless(self, failure: BaseException | None) -> None:
        if isinstance(failure, Fenced):
            self._raise_if_rival(failure)
        elif failure is not None and not isinstance(failure, PublishFailed | BrokerUnavailable | Dropped):
            raise failure

    def _raise_if_rival(self, failure: Fenced) -> None:
        # A standstill longer than the transaction timeout looks the same, without any rival.
        now = time.monotonic()
        self._fencings = [then for then in self._fencings if now - then < RIVAL_WINDOW_S] + [now]
        if len(self._fencings) >= RIVAL_FENCINGS or self._watch.look():
            raise Fenced(self._taken_message()) from failure

    def _look_around(self) -> None:
        if self._watch.is_taken:
            raise Fenced(self._taken_message())
        if self._watch.must_rejoin:
            self._watch.must_rejoin = False
            log.warning("partitions_unread", action="asking the group to share them out again")
            self._source.rejoin()
        now = time.monotonic()
        if now - self._lag_at >= LAG_EVERY_S:
            self._lag_at = now
            self._metrics.lag(self._source.lags())
            # No rebalance tells a standby without partitions that it has joined, or anybody that it is out.
            self._metrics.is_assigned = self._source.has_joined

    def _taken_message(self) -> str:
        return (
            f"Another bridge runs under instance id {self._bridge.instance_id} in group "
            f"{self._bridge.group}: this one ends. Give each its own --instance-id."
        )

    def _drain(self) -> None:
        log.info("stopping", batches_in_flight=len(self._pipeline))
        self._pipeline.finish(self._bridge.stop_timeout_s)

    def _close(self) -> None:
        self._watch.close()
        self._pipeline.close()
        self._sink.close()
        self._source.close()
        if self._bridge.leave_on_stop and self._stopping.is_set():
            self._guard.leave(self._source.member_id)

    def on_assigned(self, partitions: Sequence[int]) -> None:
        """See `Listener.on_assigned`."""
        self._metrics.rebalanced("assigned")
        log.info("partitions_assigned", partitions=list(partitions))

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """See `Listener.on_revoked`."""
        self._metrics.rebalanced("revoked")
        is_finished = self._pipeline.failure is None and self._pipeline.finish(self._bridge.revoke_timeout_s)
        log.info("partitions_revoked", partitions=list(partitions), finished=is_finished)
        if not is_finished:
            self._abandon()

    def on_lost(self, partitions: Sequence[int]) -> None:
        """See `Listener.on_lost`."""
        self._metrics.rebalanced("lost")
        log.warning("partitions_lost", partitions=list(partitions))
        self._abandon()

    def _abandon(self) -> None:
        # The transaction may be half done: the loop goes back to the committed offsets before it goes on.
        self._must_recover = True
        self._pipeline.drop(self._bridge.revoke_timeout_s)
