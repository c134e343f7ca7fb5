"""Builds a bridge of real parts; the only module that knows all of them."""

from collections.abc import Callable

from streaming.bridge.decider import Decider
from streaming.bridge.group_monitor import GroupMonitor
from streaming.bridge.loop import Bridge, BridgeParts
from streaming.bridge.pipeline import LARGE_RECORDS, Pipeline
from streaming.bridge.publisher import Publisher, RecordSizeLimits
from streaming.bridge.recovery import Recovery
from streaming.bridge_state import BridgeState
from streaming.broker.group_consumer import GroupConsumer
from streaming.broker.group_membership import KafkaGroupMembership
from streaming.broker.topics import Topics, prepare_topics
from streaming.broker.transactional_producer import TransactionalProducer
from streaming.observability.metrics import Metrics
from streaming.ports import Classifier
from streaming.scoring.backoff import Backoff
from streaming.settings.load import Settings
from streaming.settings.sections import ServiceSettings

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
    membership = KafkaGroupMembership(settings, topics.input.partitions)
    publisher = Publisher(source, sink, _size_limits(topics), metrics, state)
    pipeline = _build_pipeline(settings, classifier, publisher, metrics)
    monitor = GroupMonitor(source, membership, state, bridge.membership_check_s)
    refresh = _make_refresh(settings, publisher)
    recovery = Recovery(source, sink, pipeline, monitor, metrics, state, BROKER_BACKOFF, refresh)
    parts = BridgeParts(source, sink, membership, monitor, pipeline, recovery, metrics, state)
    return Bridge(parts, bridge, settings.service)


def _build_pipeline(
    settings: Settings, classifier: Classifier, publisher: Publisher, metrics: Metrics
) -> Pipeline:
    service, bridge = settings.service, settings.bridge
    return Pipeline(
        Decider(classifier, service_backoff(service), metrics).decide,
        publisher,
        bridge.max_in_flight_batches,
        bridge.max_in_flight_bytes,
        service.concurrency,
        min(LARGE_RECORDS, service.max_batch_records),  # a full batch is large, whatever the limit
    )


def service_backoff(service: ServiceSettings) -> Backoff:
    """Return the waits between two requests to a service that is unavailable."""
    return Backoff(service.backoff_initial_s, service.backoff_max_s, service.retry_after_max_s)


def _size_limits(topics: Topics) -> RecordSizeLimits:
    return RecordSizeLimits(topics.max_decision_bytes, topics.max_dead_letter_bytes)


def _make_refresh(settings: Settings, publisher: Publisher) -> Callable[[], None]:
    def refresh() -> None:
        publisher.limits = _size_limits(prepare_topics(settings))

    return refresh
