"""The loop: consume, classify, produce, commit."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from typing_extensions import override

from streaming.bridge.batch import split_into_batches
from streaming.bridge.group_monitor import GroupMonitor
from streaming.bridge.held import HeldPartitions
from streaming.bridge.pipeline import Pipeline
from streaming.bridge.recovery import Recovery
from streaming.bridge_state import BridgeState
from streaming.errors import Fenced, NotInGroup, RecordsHeld
from streaming.observability.metrics import Metrics
from streaming.ports import GroupMembership, RebalanceListener, Sink, Source
from streaming.records import InputRecord
from streaming.settings.bridge import BridgeSettings
from streaming.settings.sections import ServiceSettings

log = structlog.get_logger()

# While the pipeline is full the consumer is polled this often, so that rebalances are answered.
KEEP_ALIVE_S = 0.5
LAG_EVERY_S = 1.0


@dataclass(frozen=True)
class BridgeParts:
    """What a bridge is made of; `build_bridge` builds the real ones, tests build fakes."""

    source: Source
    sink: Sink
    membership: GroupMembership
    monitor: GroupMonitor
    pipeline: Pipeline
    recovery: Recovery
    held: HeldPartitions
    metrics: Metrics
    state: BridgeState


class Bridge(RebalanceListener):
    """Decides every record of the input topic exactly once.

    Parameters
    ----------
    parts : BridgeParts
    bridge : BridgeSettings
    service : ServiceSettings
    """

    def __init__(self, parts: BridgeParts, bridge: BridgeSettings, service: ServiceSettings) -> None:
        self._source = parts.source
        self._sink = parts.sink
        self._membership = parts.membership
        self._monitor = parts.monitor
        self._pipeline = parts.pipeline
        self._recovery = parts.recovery
        self._held = parts.held
        self._metrics = parts.metrics
        self._state = parts.state
        self._bridge = bridge
        self._service = service
        self._stopping = threading.Event()
        self._fetched_at = 0.0
        self._lag_at = 0.0
        self._rejoins = 0
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
            # Aborts the transaction that a predecessor left open, so its offsets settle before they are read.
            self._recovery.start_sink(self._stopping)
            self._source.start(self)
            self._monitor.start()
            while not self._stopping.is_set():
                self._step()
            log.info("stopping", batches_in_flight=len(self._pipeline))
            self._pipeline.finish(self._bridge.stop_timeout_s)
        except Fenced as error:
            raise Fenced(self._taken_message()) from error
        finally:
            self._close()

    def _step(self) -> None:
        self._note_turn()
        if isinstance(failure := self._pipeline.failure, RecordsHeld):
            self._held.hold(failure.records)
        self._held.release_due()
        if self._recovery.is_due:
            limit_s = self._bridge.transaction_deadline_s + 1
            self._recovery.run(self._stopping, limit_s, self._keep_alive)
        elif self._pipeline.has_room:
            self._resume()
            self._wait_before_fetch()
            self._fetch(self._bridge.poll_timeout_ms)
        else:
            self._pipeline.wait_for_room(KEEP_ALIVE_S)
            if not self._pipeline.has_room:
                self._keep_alive()
        self._check_group()

    def _note_turn(self) -> None:
        self._state.last_turn = time.monotonic()
        self._metrics.show_in_flight(self._pipeline)
        if not len(self._pipeline) and not self._state.total_lag:
            self._state.last_idle = self._state.last_turn

    def _wait_before_fetch(self) -> None:
        # A transaction costs the broker the same whatever it holds: fewer leave a busy machine in time.
        soonest_s = self._fetched_at + self._bridge.fetch_interval_ms / 1000 - time.monotonic()
        self._stopping.wait(max(0.0, soonest_s))
        self._fetched_at = time.monotonic()

    def _fetch(self, timeout_ms: int) -> None:
        begun = time.monotonic()
        records = self._poll(timeout_ms, self._service.max_batch_records)
        if self._recovery.is_due:
            return  # fetched beyond the offset to go back to: it will be fetched again
        if records:
            self._metrics.add_stage_seconds("fetch", time.monotonic() - begun)
        limits = self._service.max_batch_records, self._service.max_batch_bytes
        for batch in split_into_batches(records, *limits):
            self._pipeline.submit(batch)

    def _poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        try:
            return self._source.poll(timeout_ms, max_records)
        except NotInGroup as error:
            log.warning("evicted", error=str(error))
            self._abandon()
        except RecordsHeld as error:
            self._held.hold(error.records)
        return []

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if self._paused_since is not None:
            self._metrics.add_paused_seconds(now - self._paused_since)  # as it passes: it may last for hours
        self._paused_since = now
        self._source.pause()
        if self._poll(0, 1):
            # Partitions assigned during this very poll are not paused yet: what is thrown away here must
            # be fetched again.
            self._recovery.request()

    def _resume(self) -> None:
        if self._paused_since is not None:
            self._metrics.add_paused_seconds(time.monotonic() - self._paused_since)
            self._paused_since = None
            self._source.resume()

    def _check_group(self) -> None:
        if self._state.is_instance_id_taken:
            raise Fenced(self._taken_message())
        if self._state.rejoin_requests > self._rejoins:
            self._rejoins = self._state.rejoin_requests
            log.warning("partitions_unassigned", action="asking the group to assign its partitions again")
            self._source.rejoin()
        now = time.monotonic()
        if now - self._lag_at >= LAG_EVERY_S:
            self._lag_at = now
            lags = self._state.unassigned_lags | self._source.lags()
            self._metrics.show_lag(lags)
            self._state.total_lag = sum(lags.values())
            self._state.last_answer = self._source.last_answer
            # No rebalance callback tells a standby without partitions that it has joined.
            self._state.is_assigned = self._source.has_joined

    def _taken_message(self) -> str:
        return (
            f"Another bridge runs under instance id {self._bridge.instance_id} in group "
            f"{self._bridge.group}: this one ends. Give each its own --instance-id."
        )

    def _close(self) -> None:
        self._monitor.close()
        self._pipeline.close()
        self._sink.close()
        self._source.close()
        if self._bridge.leave_on_stop and self._stopping.is_set():
            self._membership.leave(self._source.member_id)

    @override
    def on_assigned(self, partitions: Sequence[int]) -> None:
        self._metrics.count_rebalance("assigned")
        self._held.forget()  # the next owner finds out for itself
        log.info("partitions_assigned", partitions=list(partitions))

    @override
    def on_revoked(self, partitions: Sequence[int]) -> None:
        self._metrics.count_rebalance("revoked")
        is_finished = self._pipeline.failure is None and self._pipeline.finish(self._bridge.revoke_timeout_s)
        log.info("partitions_revoked", partitions=list(partitions), finished=is_finished)
        if not is_finished:
            self._abandon()

    @override
    def on_lost(self, partitions: Sequence[int]) -> None:
        self._metrics.count_rebalance("lost")
        log.warning("partitions_lost", partitions=list(partitions))
        self._abandon()

    def _abandon(self) -> None:
        # The transaction may be half done: the loop goes back to the committed offsets before it goes on.
        self._recovery.request()
        self._pipeline.drop(self._bridge.revoke_timeout_s)
