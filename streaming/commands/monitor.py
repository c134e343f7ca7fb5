"""Runs `monitor`: builds it, serves its page, stops it on a signal."""

import structlog

from streaming.broker.monitored_topics import MonitoredTopics, prepare_monitored_topics
from streaming.broker.topics_reader import TopicsReader
from streaming.commands.signals import StopSignals
from streaming.errors import SettingsError, StreamingError
from streaming.monitor.drift.watch import DriftWatch
from streaming.monitor.loop import Monitor
from streaming.monitor.page.server import serve_page
from streaming.monitor.page.view import View
from streaming.monitor.promises import InfoReader, info_urls
from streaming.monitor.store.state import State
from streaming.observability.status_server import StatusServer
from streaming.scoring.client import service_key, service_trust
from streaming.settings.load import Settings

log = structlog.get_logger()


def run_monitor(settings: Settings) -> None:
    """Watch the stream's quality until SIGTERM or SIGINT.

    Raises
    ------
    StreamingError
        When it cannot start or cannot go on.
    """
    signals = StopSignals(forced_status=0)  # a forced end loses nothing, as a kill does
    ours = settings.monitor
    state = State(ours)
    view = View(ours.refresh_s, ours.stale_after_s)
    server: StatusServer | None = None
    try:
        server = serve_page(ours.host, ours.port, view)
        log.info("page", address=f"http://{ours.host}:{server.port}/")
        topics = prepare_monitored_topics(settings)
        reader = TopicsReader(settings.kafka, _assignment(settings, topics))
        info = _info(settings)
        monitor = Monitor(reader, topics.names, state, DriftWatch(settings.drift, state.drift()), info, ours)
        view.monitor = monitor
        signals.on_stop(monitor.stop)
        log.info("started", state=str(ours.state), partitions=topics.partitions)
        monitor.run()
        reader.close()
        log.info("stopped")
    except StreamingError as error:
        view.failed_by = str(error)
        log.error("failed", error=str(error))
        raise
    finally:
        if server is not None:
            server.close()
        state.close()


def _assignment(settings: Settings, topics: MonitoredTopics) -> dict[str, tuple[int, ...]]:
    chosen = settings.monitor.partitions or tuple(range(topics.partitions))
    if max(chosen) >= topics.partitions:
        raise SettingsError(
            f"monitor.partitions names {max(chosen)}: topic {settings.topics.input} has partitions "
            f"0 to {topics.partitions - 1}."
        )
    return dict.fromkeys(topics.names.values(), chosen)


def _info(settings: Settings) -> InfoReader:
    ours, service = settings.monitor, settings.service
    urls = info_urls(ours.info_url, ours.shadow_info_url, service.classify_url)
    return InfoReader(urls, ours.info_refresh_s, service_key(service), service_trust(service))
