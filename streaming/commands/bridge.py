"""Runs a command that has its settings: signals, servers, progress."""

import gc
import sys
import threading

import structlog

from streaming.broker.admin import prepare_input
from streaming.broker.idempotent_producer import Feed
from streaming.commands.build_bridge import build_bridge
from streaming.commands.progress_bar import counting
from streaming.commands.signals import Stopping
from streaming.errors import StreamingError
from streaming.observability.metrics import Metrics
from streaming.observability.status_server import Health, StatusServer
from streaming.replay.rate_limiter import Pace
from streaming.replay.replay import data_file, repeated, replay
from streaming.scoring.client import HttpClassifier
from streaming.settings.load import Settings

log = structlog.get_logger()

# The threads of a batch wait for each other: with Python's 5 ms each hand-over may cost that.
SWITCH_INTERVAL_S = 0.0005


def run_bridge(settings: Settings) -> None:
    """Run a bridge until SIGTERM or SIGINT.

    Raises
    ------
    StreamingError
        When it cannot start or cannot go on.
    """
    # First of all: waiting for the broker takes up to `connect_timeout_s`. With the broker down a call may
    # hang; an end without goodbye loses nothing: what is open is aborted, as after a kill.
    stopping = Stopping(forced_status=0)
    metrics = Metrics()
    classifier = HttpClassifier(settings.service)
    health = Health(metrics, settings.metrics, classifier.is_ready)
    server = StatusServer(settings.metrics, metrics, health) if settings.metrics.port else None
    try:
        bridge = build_bridge(settings, metrics, classifier)
        stopping.calls(bridge.stop)
        # What lives as long as the bridge need not be looked at again by each full collection.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
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


def run_replay(settings: Settings) -> None:
    """Send the transactions of a file, with a progress line on a terminal.

    Raises
    ------
    StreamingError
        When the file cannot be read or the broker does not take them.
    """
    stopped = threading.Event()
    stopping = Stopping(forced_status=1)  # what is not acknowledged by then may be missing
    prepare_input(settings)
    feed = Feed(settings.kafka, settings.replay.delivery_timeout_s)
    stopping.calls(stopped.set)
    wanted = settings.replay
    rows = wanted.limit or wanted.simulated_rows
    try:
        with data_file(wanted.data, rows) as path, counting("sent", wanted.limit) as report:
            done = replay(
                repeated(path, wanted.loop, wanted.limit),
                feed,
                settings.topics.input,
                Pace(wanted.rate, wanted.tick_ms / 1000),
                report,
                stopped.is_set,
            )
    finally:
        feed.close()
    sys.stdout.write(
        f"{done.transactions} transactions in {done.seconds:.2f} s, {done.per_second:.1f} per second\n"
    )
