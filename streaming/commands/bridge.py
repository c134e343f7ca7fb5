"""Runs `bridge`: builds it, serves its status, stops it on a signal."""

import gc
import sys

import structlog

from streaming.bridge_state import BridgeState
from streaming.commands.build_bridge import build_bridge
from streaming.commands.signals import StopSignals
from streaming.errors import StreamingError
from streaming.observability.health import Health
from streaming.observability.metrics import Metrics
from streaming.observability.status_server import serve_bridge
from streaming.observability.summary import SummaryLog
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
    # hang; a forced end loses nothing: the broker aborts the open transaction, as after a kill.
    signals = StopSignals(forced_status=0)
    metrics, state = Metrics(), BridgeState()
    classifier = HttpClassifier(settings.service)
    health = Health(state, settings.metrics, classifier.is_ready)
    metrics.watch(health.readiness_failure, health.broker_silence_s)
    server = serve_bridge(settings.metrics, metrics, health) if settings.metrics.port else None
    summary = SummaryLog(metrics.summary, state, settings.log.summary_s)
    try:
        bridge = build_bridge(settings, metrics, state, classifier)
        signals.on_stop(bridge.stop)
        _tune_interpreter()
        summary.start()
        log.info("started", group=settings.bridge.group, instance_id=settings.bridge.instance_id)
        bridge.run()
        log.info("stopped")
    except StreamingError as error:
        state.stopped_by = str(error)
        log.error("failed", error=str(error))
        raise
    finally:
        summary.close()
        classifier.close()
        if server is not None:
            server.close()


def _tune_interpreter() -> None:
    # Objects that live as long as the bridge need not be visited by each full collection.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
