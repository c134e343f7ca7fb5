"""Builds a bridge of real parts; the only place that knows all of them."""

from collections.abc import Callable

from streaming.bridge.decider import Decider
from streaming.bridge.group_monitor import Watch
from streaming.bridge.loop import Bridge, Parts
from streaming.bridge.pipeline import LARGE_RECORDS, Pipeline
from streaming.bridge.publisher import Limits, Publisher
from streaming.broker.admin import GroupGuard, Topics, prepare_topics
from streaming.broker.group_consumer import GroupSource
from streaming.broker.transactional_producer import TransactionalSink
from streaming.observability.metrics import Metrics
from streaming.scoring.backoff import Backoff
from streaming.scoring.client import Classifier, HttpClassifier
from streaming.settings.load import Settings


def build_bridge(settings: Settings, metrics: Metrics, classifier: Classifier | None = None) -> Bridge:
    """Connect to the broker, make sure of the topics, and put a bridge together.

    Parameters
    ----------
    settings : Settings
    metrics : Metrics
    classifier : Classifier, optional
        By default one that asks ``service.classify_url``.

    Raises
    ------
    StreamingError
        When settings, broker or topics do not allow to start.
    """
    classifier = classifier or HttpClassifier(settings.service)
    topics = prepare_topics(settings)
    source = GroupSource(settings)
    sink = TransactionalSink(
        settings,
        f"{settings.bridge.group}.{settings.bridge.instance_id}",
        topics.input.name,
        {"decision": topics.output, "dead_letter": topics.dead_letter},
        metrics.spent,
    )
    guard = GroupGuard(settings, topics.input.partitions)
    publisher = Publisher(source, sink, _limits(topics), metrics)
    service, bridge = settings.service, settings.bridge
    decider = Decider(
        classifier,
        Backoff(service.backoff_initial_s, service.backoff_max_s, service.retry_after_max_s),
        metrics,
    )
    pipeline = Pipeline(
        decider.decide,
        publisher,
        bridge.max_in_flight_batches,
        bridge.max_in_flight_bytes,
        service.concurrency,
        min(LARGE_RECORDS, service.max_batch_records),  # a full batch is large, whatever the limit
    )
    watch = Watch(source, guard, metrics, bridge.membership_check_s, settings.log.summary_s)
    refresh = _refresher(settings, publisher)
    return Bridge(Parts(source, sink, guard, watch, pipeline, metrics, refresh), bridge, service)


def _limits(topics: Topics) -> Limits:
    return Limits(topics.max_decision_bytes, topics.max_dead_letter_bytes)


def _refresher(settings: Settings, publisher: Publisher) -> Callable[[], None]:
    def refresh() -> None:
        publisher.limits = _limits(prepare_topics(settings))

    return refresh
