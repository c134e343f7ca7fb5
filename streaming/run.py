"""Runs a command that has its settings: signals, servers, progress."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import structlog

from streaming.broker.admin import prepare_topics
from streaming.broker.feed import Feed
from streaming.build import build_bridge
from streaming.client import HttpClassifier
from streaming.errors import StreamingError
from streaming.metrics import Metrics
from streaming.pace import Pace
from streaming.progress import counting
from streaming.replay import data_file, repeated, replay
from streaming.settings import Settings
from streaming.status import Health, StatusServer

log = structlog.get_logger()

# A stop takes no longer than 10 s, whatever hangs.
STOP_LIMIT_S = 9.0


def run_bridge(settings: Settings) -> None:
    """Run a bridge until SIGTERM or SIGINT.

    Raises
    ------
    StreamingError
        When it cannot start or cannot go on.
    """
    metrics = Metrics()
    classifier = HttpClassifier(settings.service)
    health = Health(metrics, settings.metrics, classifier.is_ready)
    server = StatusServer(settings.metrics, metrics, health) if settings.metrics.port else None
    try:
        bridge = build_bridge(settings, metrics, classifier)
        _on_signal(bridge.stop)
        # What lives as long as the bridge need not be looked at again by each full collection.
        gc.collect()
        gc.freeze()
        log.info("started", group=settings.bridge.group, instance_id=settings.bridge.instance_id)
        bridge.run()
        log.info("stopped")
    except StreamingError as error:
        metrics.stopped_by = str(error)
        log.error("failed", error=str(error))
        raise
    finally:
        classifier.close()
        if server is not None:
            server.close()


def _on_signal(stop: Callable[[], None]) -> None:
    def handle(number: int, _: FrameType | None) -> None:
        stop()
        # With the broker down a call may hang. An end without goodbye loses nothing: what is open is
        # aborted, as after a kill.
        last_resort = threading.Timer(STOP_LIMIT_S, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def run_replay(settings: Settings, data: str, limit: int | None, *, is_looping: bool) -> None:
    """Send the transactions of a file, with a progress line on a terminal.

    Raises
    ------
    StreamingError
        When the file cannot be read or the broker does not take them.
    """
    stopped = threading.Event()
    _on_signal(stopped.set)
    prepare_topics(settings)
    feed = Feed(settings.kafka, settings.replay.delivery_timeout_s)
    rows = limit or settings.replay.simulated_rows
    try:
        with data_file(data, rows) as path, counting("sent", limit) as report:
            done = replay(
                repeated(path, is_looping, limit),
                feed,
                settings.topics.input,
                Pace(settings.replay.rate, settings.replay.tick_ms / 1000),
                report,
                stopped.is_set,
            )
    finally:
        feed.close()
    sys.stdout.write(
        f"{done.transactions} transactions in {done.seconds:.2f} s, {done.per_second:.1f} per second\n"
    )
