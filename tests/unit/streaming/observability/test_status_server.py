import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from streaming.bridge_state import BridgeState
from streaming.errors import SettingsError
from streaming.observability import status_server as status
from streaming.observability.health import Health
from streaming.observability.metrics import KNOWN_REJECTIONS, KNOWN_RETRIES, STAGES, Metrics
from streaming.observability.status_server import serve_bridge
from streaming.records import HeldRecord, InputRecord, Rejection, ServiceDecision
from streaming.settings.sections import MetricsSettings


class InFlight:
    def __init__(self, batches: int = 0, oldest_timestamp_ms: int | None = None) -> None:
        self._batches, self.oldest_timestamp_ms = batches, oldest_timestamp_ms

    def __len__(self) -> int:
        return self._batches


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def state() -> BridgeState:
    return BridgeState(is_assigned=True)


@pytest.fixture
def address(metrics: Metrics, state: BridgeState) -> Iterator[str]:
    settings = MetricsSettings(port=0)
    server = serve_bridge(settings, metrics, Health(state, settings, lambda: True))
    yield f"http://127.0.0.1:{server.port}"
    server.close()


def health(state: BridgeState, is_service_ready: bool = True) -> Health:
    settings = MetricsSettings(progress_timeout_s=1.0, live_timeout_s=2.0)
    return Health(state, settings, lambda: is_service_ready)


def test_a_working_bridge_is_alive_and_ready(address: str) -> None:
    assert httpx.get(f"{address}/livez").text == "ok\n"
    assert httpx.get(f"{address}/readyz").status_code == 200
    assert httpx.get(f"{address}/other").status_code == 404


def test_what_is_known_to_be_possible_counts_from_zero(metrics: Metrics) -> None:
    value = metrics.registry.get_sample_value
    assert value("bridge_retries_total", {"reason": "503"}) == 0
    assert value("bridge_transactions_total", {"outcome": "aborted"}) == 0
    assert value("bridge_dead_letters_total", {"stage": "parse", "reason": "not_json"}) == 0
    record = InputRecord("t", 0, 0, 0, None, b"{}")
    metrics.count_transaction([(record, ServiceDecision(b"{}", "approve", "12"))], 0.01)
    assert value("bridge_records_decided_total", {"decision": "decline", "release": "12"}) == 0
    assert value("bridge_records_decided_total", {"decision": "approve", "release": "12"}) == 1


def test_no_reason_of_the_bridge_is_forgotten() -> None:
    """Those that the service gives for an item are not known here; all others begin at zero."""
    sources = [path.read_text() for path in Path(status.__file__).parents[1].rglob("*.py")]
    named = {pair for text in sources for pair in re.findall(r'Rejection\(\s*"(\w+)",\s*"(\w+)"', text)}
    assert named == {(stage, reason) for stage, reasons in KNOWN_REJECTIONS.items() for reason in reasons}
    stages = {
        stage for text in sources for stage in re.findall(r'(?:add_stage_seconds|_spent)\("(\w+)"', text)
    }
    assert stages == set(STAGES)
    failures = {why for text in sources for why in re.findall(r'ServiceUnavailable\([^)]*, "(\w+)"\)', text)}
    assert failures <= set(KNOWN_RETRIES)


def test_a_loop_that_hangs_is_not_alive(state: BridgeState) -> None:
    state.last_turn -= 3
    assert "not turned" in (health(state).liveness_failure() or "")
    assert health(state).readiness_failure()


def test_waiting_records_without_progress_are_not_ready(state: BridgeState) -> None:
    state.last_idle -= 2
    assert "records wait" in (health(state).readiness_failure() or "")
    assert health(state).liveness_failure() is None


def test_brokers_that_do_not_answer_are_told(state: BridgeState) -> None:
    state.last_answer -= 11
    assert "have not answered for 11 s" in (health(state).readiness_failure() or "")


@pytest.mark.parametrize(("timestamp_ms", "age_s"), [(None, 0.0), (-1, 0.0)])
def test_a_record_without_a_timestamp_is_not_fifty_years_old(timestamp_ms: int | None, age_s: float) -> None:
    class Pipeline:
        oldest_timestamp_ms = timestamp_ms

        def __len__(self) -> int:
            return 1

    metrics = Metrics()
    metrics.show_in_flight(Pipeline())
    assert metrics.registry.get_sample_value("bridge_oldest_in_flight_seconds") == age_s


def test_what_is_in_flight_grows_older_while_the_bridge_waits_for_a_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Pipeline:
        oldest_timestamp_ms = 1_000_000

        def __len__(self) -> int:
            return 1

    metrics = Metrics()
    metrics.show_in_flight(Pipeline())
    for now_s, age_s in ((1010.0, 10.0), (1060.0, 60.0)):
        monkeypatch.setattr("streaming.observability.metrics.time.time", lambda now_s=now_s: now_s)
        assert metrics.registry.get_sample_value("bridge_oldest_in_flight_seconds") == age_s


def test_whether_it_is_ready_is_a_metric_too(state: BridgeState) -> None:
    metrics, judge = Metrics(), health(state)
    metrics.watch(judge.readiness_failure, judge.broker_silence_s)
    value = metrics.registry.get_sample_value
    assert value("bridge_ready") == 1
    state.last_answer -= 90
    assert value("bridge_ready") == 0
    assert value("bridge_broker_silence_seconds") == pytest.approx(90, abs=1)


def test_a_held_record_is_named(state: BridgeState) -> None:
    state.held = {3: HeldRecord(3, 41, "The service answered 500.")}
    reason = health(state).readiness_failure() or ""
    assert "partition 3, offset 41" in reason
    assert "streaming skip" in reason


def test_an_unready_service_a_missing_group_and_a_stop_are_told(state: BridgeState) -> None:
    assert "service" in (health(state, is_service_ready=False).readiness_failure() or "")
    assert "group" in (health(BridgeState()).readiness_failure() or "")
    state.is_assigned = False
    assert "group" in (health(state).readiness_failure() or "")
    state.stopped_by = "The service answered 401."
    assert health(state).readiness_failure() == "The service answered 401."


def test_readiness_is_503_with_its_reason(state: BridgeState, address: str) -> None:
    state.stopped_by = "The service answered 401."
    answer = httpx.get(f"{address}/readyz")
    assert (answer.status_code, answer.text) == (503, "The service answered 401.\n")


def test_a_port_that_is_taken_is_a_wrong_setting(address: str, metrics: Metrics, state: BridgeState) -> None:
    settings = MetricsSettings(port=int(address.rsplit(":", 1)[1]))
    with pytest.raises(SettingsError, match="--metrics-port"):
        serve_bridge(settings, metrics, health(state))


def test_every_metric_of_the_issue_is_there(metrics: Metrics, address: str) -> None:
    record = InputRecord("t", 0, 0, int(time.time() * 1000) - 50, None, b"{}")
    decision = ServiceDecision(b"{}", "review", "7")
    metrics.count_transaction([(record, decision), (record, Rejection("parse", "empty", ""))], 0.01)
    metrics.count_rebalance("assigned")
    metrics.count_request(0.002, 2)
    metrics.count_failed_request("503")
    metrics.count_aborted()
    metrics.add_paused_seconds(1.5)
    metrics.show_lag({3: 17})
    metrics.show_in_flight(InFlight(2, int(time.time() * 1000) - 5000))
    text = httpx.get(f"{address}/metrics").text
    for line in (
        'bridge_records_decided_total{decision="review",release="7"} 1.0',
        'bridge_dead_letters_total{reason="empty",stage="parse"} 1.0',
        "bridge_batch_records_sum 2.0",
        "bridge_request_seconds_count 1.0",
        'bridge_retries_total{reason="503"} 1.0',
        'bridge_transactions_total{outcome="committed"} 1.0',
        'bridge_transactions_total{outcome="aborted"} 1.0',
        "bridge_transaction_seconds_count 1.0",
        "bridge_produced_to_decided_seconds_count 2.0",
        "bridge_paused_seconds_total 1.5",
        'bridge_rebalances_total{kind="assigned"} 1.0',
        'bridge_lag_records{partition="3"} 17.0',
        "bridge_batches_in_flight 2.0",
        "bridge_last_commit_timestamp_seconds 1",
        "bridge_oldest_in_flight_seconds 5",
    ):
        assert line in text, line


def test_the_summary_begins_anew(metrics: Metrics) -> None:
    metrics.count_request(0.002, 2)
    metrics.count_failed_request("503")
    first, second = metrics.summary.take(), metrics.summary.take()
    assert (first["retries"], first["request_ms"]) == (1, 2.0)
    assert (second["retries"], second["request_ms"]) == (0, 0.0)


def test_a_scrape_never_misses_the_lag_of_a_partition(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lag_of(partition: str) -> float | None:
        return metrics.registry.get_sample_value("bridge_lag_records", {"partition": partition})

    metrics.show_lag({0: 1, 1: 2, 2: 3})
    assert lag_of("2") == 3
    scraped: list[float | None] = []
    labels = metrics._lag.labels

    def scraping(name: str) -> object:
        scraped.append(lag_of("1"))  # as the thread of a scrape may, at this very moment
        return labels(name)

    monkeypatch.setattr(metrics._lag, "labels", scraping)
    metrics.show_lag({0: 4, 1: 5})
    assert scraped == [2.0, 2.0]
    assert (lag_of("1"), lag_of("2")) == (5.0, None)


def test_no_latency_is_negative_or_since_1970(metrics: Metrics) -> None:
    ahead, none = int(time.time() * 1000) + 60_000, -1
    for timestamp_ms in (ahead, none):
        record = InputRecord("t", 0, 0, timestamp_ms, None, b"{}")
        metrics.count_transaction([(record, Rejection("parse", "empty", ""))], 0.01)
    value = metrics.registry.get_sample_value
    assert value("bridge_produced_to_decided_seconds_count") == 1
    assert value("bridge_produced_to_decided_seconds_sum") == 0
