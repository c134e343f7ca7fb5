"""Builds a bridge of real parts; the only module that knows all of them."""

import structlog

from streaming.bridge.decider import Decider
from streaming.bridge.group_monitor import GroupMonitor
from streaming.bridge.held import HeldPartitions
from streaming.bridge.loop import Bridge, BridgeParts
from streaming.bridge.pipeline import LARGE_RECORDS, Pipeline
from streaming.bridge.publisher import Publisher, RecordSizeLimits
from streaming.bridge.recovery import Recovery
from streaming.bridge_state import BridgeState
from streaming.broker.group.group_consumer import GroupConsumer
from streaming.broker.group.group_membership import KafkaGroupMembership
from streaming.broker.topics import Topics, prepare_topics
from streaming.broker.transactional_producer import TransactionalProducer
from streaming.observability.metrics import Metrics
from streaming.ports import Classifier
from streaming.scoring.backoff import Backoff
from streaming.settings.load import Settings
from streaming.settings.sections import ServiceSettings

log = structlog.get_logger()

# Waits between attempts to reach the broker again.
BROKER_BACKOFF = Backoff(0.2, 2.0)


def build_bridge(settings: Settings, metrics: Metrics, state: BridgeState, classifier: Classifier) -> Bridge:
    """Connect to the broker, make sure of the topics, and put a bridge together.

    Raises
    ------
    StreamingError
        When settings, broker or topics do not allow to start.
    """
    topics = prepare_topics(settings)
    bridge = settings.bridge
    source = GroupConsumer(settings, metrics.count_skipped)
    sink = TransactionalProducer(
        settings,
        f"{bridge.group}.{bridge.instance_id}",
        topics.input.name,
        {"decision": topics.output, "dead_letter": topics.dead_letter},
        metrics.add_stage_seconds,
    )
    outputs = _OutputTopics(settings, sink, topics)
    membership = KafkaGroupMembership(settings)
    publisher = Publisher(source, sink, outputs.read_limits, metrics, state)
    service = settings.service
    pipeline = Pipeline(
        Decider(classifier, service_backoff(service), metrics, state).decide,
        publisher,
        bridge.max_in_flight_batches,
        bridge.max_in_flight_bytes,
        service.concurrency,
        min(LARGE_RECORDS, service.max_batch_records),  # a full batch is large, whatever the limit
    )
    monitor = GroupMonitor(source, membership, state, bridge.membership_check_s)
    recovery = Recovery(source, sink, pipeline, monitor, metrics, state, BROKER_BACKOFF, publisher)
    held = HeldPartitions(source, metrics, state)
    parts = BridgeParts(source, sink, membership, monitor, pipeline, recovery, held, metrics, state)
    return Bridge(parts, bridge, settings.service)


def service_backoff(service: ServiceSettings) -> Backoff:
    """Return the waits between two requests to a service that is unavailable."""
    return Backoff(service.backoff_initial_s, service.backoff_max_s, service.retry_after_max_s)


class _OutputTopics:
    """Looks at the output topics, and keeps the sink in step with them."""

    def __init__(self, settings: Settings, sink: TransactionalProducer, topics: Topics) -> None:
        self._settings = settings
        self._sink = sink
        self._known: Topics | None = topics  # looked at already, for the first call

    def read_limits(self) -> RecordSizeLimits:
        """Look at the topics again; return the largest records that they take."""
        topics, self._known = self._known or prepare_topics(self._settings), None
        limits = RecordSizeLimits(topics.max_decision_bytes, topics.max_dead_letter_bytes)
        known = [limit for limit in (limits.decision, limits.dead_letter) if limit is not None]
        if len(known) < 2:
            log.warning("size_limits_unknown", action="grant DESCRIBE_CONFIGS on the output topics")
        self._sink.use_topics(
            {"decision": topics.output, "dead_letter": topics.dead_letter}, min(known, default=None)
        )
        return limits
