"""A release that becomes active while a bridge runs is counted from its first decision on."""

from prometheus_client import CollectorRegistry, generate_latest

from streaming.observability.metrics import Metrics
from streaming.records import InputRecord, ServiceDecision


def decide(metrics: Metrics, release: str, times: int) -> None:
    record = InputRecord("transactions", 0, 0, 0, None, None)
    metrics.count_transaction([(record, ServiceDecision(b"", "approve", release))] * times, 0.001)


def scraped(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    series = [line.split() for line in lines if line.startswith("bridge_records_decided_total")]
    return {name: float(value) for name, value in series}


def series(decision: str, release: str) -> str:
    return f'bridge_records_decided_total{{decision="{decision}",release="{release}"}}'


def test_a_scrape_sees_a_new_release_at_zero_before_its_counts() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    decide(metrics, "7", 3)
    assert scraped(registry)[series("approve", "7")] == 3
    decide(metrics, "8", 200)
    decide(metrics, "7", 1)
    seen = scraped(registry)
    assert {seen[series(decision, "8")] for decision in ("approve", "review", "decline")} == {0}
    assert seen[series("approve", "7")] == 4
    decide(metrics, "8", 5)
    assert scraped(registry)[series("approve", "8")] == 205
    decide(metrics, "7", 1)  # rolled back: known already
    assert scraped(registry)[series("approve", "7")] == 5
