"""After a failure: back to the committed offsets, with a new producer, unless no retry can help."""

import threading
import time
from collections.abc import Callable

import structlog

from streaming.bridge.decider import Dropped
from streaming.bridge.group_monitor import GroupMonitor
from streaming.bridge.pipeline import Pipeline
from streaming.bridge.publisher import Publisher
from streaming.bridge_state import BridgeState
from streaming.errors import (
    BrokerUnavailable,
    Fenced,
    MessageTooLarge,
    PublishFailed,
    RecordsHeld,
    TopicsChanged,
)
from streaming.observability.metrics import Metrics
from streaming.ports import Sink, Source
from streaming.scoring.backoff import Backoff

log = structlog.get_logger()

# What going back to the committed offsets can mend.
PASSING = (PublishFailed, BrokerUnavailable, Dropped, RecordsHeld)
# Fenced this often within this time, another process must be using the instance id.
RIVAL_FENCINGS = 3
RIVAL_WINDOW_S = 60.0


class Recovery:
    """Replaces the producer and rewinds the source.

    Parameters
    ----------
    source, sink, pipeline
        What is brought back to the committed offsets.
    monitor : GroupMonitor
        Asked whether a fencing has a rival behind it.
    metrics : Metrics
    state : BridgeState
    backoff : Backoff
        Waits between attempts, and between recoveries without progress.
    publisher : Publisher
        Reads the output topics' limits again after they have refused a record.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # everything that a failure touches
        self,
        source: Source,
        sink: Sink,
        pipeline: Pipeline,
        monitor: GroupMonitor,
        metrics: Metrics,
        state: BridgeState,
        backoff: Backoff,
        publisher: Publisher,
    ) -> None:
        self._source = source
        self._sink = sink
        self._pipeline = pipeline
        self._monitor = monitor
        self._metrics = metrics
        self._state = state
        self._backoff = backoff
        self._publisher = publisher
        self._must_refresh = False
        self._is_requested = False
        self._fencings: list[float] = []
        self._recoveries = 0
        self._recovered_at = 0.0

    @property
    def is_due(self) -> bool:
        """Whether nothing may be fetched or published before `run`."""
        return self._is_requested or self._pipeline.failure is not None

    def request(self) -> None:
        """Make a recovery due."""
        self._is_requested = True

    def start_sink(self, stopping: threading.Event) -> None:
        """Start the sink for the first time; waits for the broker until it answers or `stopping` is set."""
        attempt = 0
        while not stopping.is_set():
            attempt += 1
            try:
                self._sink.start()
                return
            except (BrokerUnavailable, PublishFailed) as error:
                log.warning("producer_not_started", error=str(error), attempt=attempt)
                self._backoff.wait(attempt, stopping)

    def run(self, stopping: threading.Event, drop_timeout_s: float, keep_alive: Callable[[], None]) -> None:
        """Drop what is in flight and go back to the committed offsets.

        Parameters
        ----------
        stopping : threading.Event
            Ends the attempts.
        drop_timeout_s : float
            How long the publisher may take to let go, seconds.
        keep_alive : callable
            Keeps the membership alive between two attempts.

        Raises
        ------
        StreamingError
            The failure, where no retry can help.
        """
        failure = self._pipeline.failure
        self._raise_if_hopeless(failure)
        self._is_requested = True
        self._pipeline.drop(drop_timeout_s)
        self._slow_down(stopping)
        if failure is not None and not isinstance(failure, RecordsHeld):
            log.warning("transaction_abandoned", error=str(failure) or type(failure).__name__)
            self._metrics.count_aborted()
        self._must_refresh |= isinstance(failure, MessageTooLarge | TopicsChanged)
        self._go_back(stopping, keep_alive)

    def _go_back(self, stopping: threading.Event, keep_alive: Callable[[], None]) -> None:
        attempt = 0
        while not stopping.is_set():
            attempt += 1
            self._state.last_turn = time.monotonic()
            try:
                if self._must_refresh:
                    self._publisher.refresh_limits()
                    self._must_refresh = False
                self._sink.start()
                self._source.rewind()
            except (BrokerUnavailable, PublishFailed) as error:
                log.warning("broker_unavailable", error=str(error), attempt=attempt)
                keep_alive()
                self._backoff.wait(attempt, stopping)
            else:
                self._is_requested = False
                return

    def _slow_down(self, stopping: threading.Event) -> None:
        # A topic that refuses every transaction must not be asked without a pause.
        if self._state.last_progress > self._recovered_at:
            self._recoveries = 0
        if self._recoveries:
            self._backoff.wait(self._recoveries, stopping)
        self._recoveries += 1
        self._recovered_at = time.monotonic()

    def _raise_if_hopeless(self, failure: BaseException | None) -> None:
        if isinstance(failure, Fenced):
            self._raise_if_rival(failure)
        elif failure is not None and not isinstance(failure, PASSING):
            raise failure

    def _raise_if_rival(self, failure: Fenced) -> None:
        # A standstill longer than the transaction timeout looks the same, without any rival.
        now = time.monotonic()
        self._fencings = [then for then in self._fencings if now - then < RIVAL_WINDOW_S] + [now]
        if len(self._fencings) >= RIVAL_FENCINGS or self._monitor.is_instance_id_taken():
            raise failure
