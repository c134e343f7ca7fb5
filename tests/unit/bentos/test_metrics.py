"""What Prometheus reads."""

import re
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from bentos import errors
from bentos.compat.bulk_histogram import BulkHistogram
from bentos.decision_message import DecisionMessage, ModelScores
from bentos.metric_families import SCORE_BUCKETS
from bentos.metrics import REASONS, STATUSES, Metrics

SOURCES = Path(errors.__file__).parent


def decided(decision: str, *raised_by: str) -> DecisionMessage:
    raised, models = msgspec.Raw(msgspec.json.encode(raised_by)), msgspec.Raw(b"{}")
    return DecisionMessage("T", decision, True, 0.1, "LOW", raised, ModelScores(0.1, 0.2), "12", models)


DECIDED = [decided("approve"), decided("review", "neural_net"), decided("decline", "neural_net", "xgboost")]


@given(st.lists(st.floats(0, 2) | st.sampled_from(SCORE_BUCKETS), max_size=50))
def test_many_at_once_counts_as_one_by_one(values: list[float]) -> None:
    many, single = CollectorRegistry(), CollectorRegistry()
    BulkHistogram("x", "x", buckets=SCORE_BUCKETS, registry=many).observe_many(values)
    histogram = Histogram("x", "x", buckets=SCORE_BUCKETS, registry=single)
    for value in values:
        histogram.observe(value)

    def buckets(registry: CollectorRegistry) -> list[bytes]:
        return [line for line in generate_latest(registry).splitlines() if line.startswith(b"x_bucket")]

    assert buckets(many) == buckets(single)
    assert abs((many.get_sample_value("x_sum") or 0) - sum(values)) < 1e-6


def test_everything_kept_is_handed_over_once() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    scores = np.array([0.1, 0.9, 0.95])
    for _ in range(2):
        metrics.record_scores(scores, scores, scores)
        metrics.record_batch(rows=3, requests=2, queue_s=0.001, runners_s=0.002, policy_s=0.0001)
        metrics.count_request(200, 0.001)
        metrics.record_answer(DECIDED, is_explained=False, total_s=0.004, decode_s=0.001, encode_s=0.0001)
    metrics.count_refusal("not_json")
    metrics.flush()
    metrics.flush()
    value = registry.get_sample_value
    assert value("fraud_transactions_total") == 6
    assert value("fraud_decisions_total", {"decision": "decline", "release": "12"}) == 2
    assert value("fraud_alarms_total", {"raised_by": "neural_net", "release": "12"}) == 4
    assert value("fraud_alarms_total", {"raised_by": "xgboost", "release": "12"}) == 2
    assert value("fraud_request_seconds_count") == 2
    assert value("fraud_explain_request_seconds_count") == 0
    assert value("fraud_score_count", {"model": "xgboost"}) == 6
    assert value("fraud_probability_bucket", {"le": "0.1"}) == 2
    assert value("fraud_requests_total", {"status": "200"}) == 2
    assert value("fraud_batch_rows_sum") == 6
    assert value("fraud_batch_requests_sum") == 4
    assert value("fraud_stage_seconds_count", {"stage": "runners"}) == 2
    assert value("fraud_refused_total", {"reason": "not_json"}) == 1


def test_every_reason_and_status_begins_at_zero() -> None:
    """What is seen first at 1 has no rate: no alert would see the first defect."""
    registry = CollectorRegistry()
    Metrics(registry).set_release(SimpleNamespace(number="12", neural_net_tag="n:12", xgboost_tag="x:12"))  # type: ignore[arg-type]
    for decision in ("approve", "review", "decline"):
        assert (
            registry.get_sample_value("fraud_decisions_total", {"decision": decision, "release": "12"}) == 0
        )
    for status in STATUSES:
        assert registry.get_sample_value("fraud_requests_total", {"status": status}) == 0
    for reason in REASONS:
        assert registry.get_sample_value("fraud_refused_total", {"reason": reason}) == 0


def test_only_the_release_that_is_served_shows_1() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for number in ("12", "13"):
        metrics.set_release(
            SimpleNamespace(number=number, neural_net_tag=f"n:{number}", xgboost_tag=f"x:{number}")  # type: ignore[arg-type]
        )
    metrics.count_swap("swapped")
    shown = {
        number: registry.get_sample_value(
            "fraud_release_info", {"release": number, "neural_net": f"n:{number}", "xgboost": f"x:{number}"}
        )
        for number in ("12", "13")
    }
    assert shown == {"12": 0, "13": 1}
    assert registry.get_sample_value("fraud_release_swaps_total", {"outcome": "swapped"}) == 1
    assert registry.get_sample_value("fraud_release_swaps_total", {"outcome": "refused"}) == 0


def test_no_reason_is_forgotten() -> None:
    given = {
        reason
        for path in SOURCES.rglob("*.py")
        for reason in re.findall(r'(?:reason(?:: str)? ?= ?|refused\()"(\w+)"', path.read_text())
    }
    assert given - set(REASONS) == {"malformed", "unavailable"}  # of base classes, never raised
    answered = [error for error in vars(errors).values() if hasattr(error, "status")]
    # Who has no key or method is refused before a request counts as one to /classify.
    assert {str(error.status) for error in answered} - set(STATUSES) == {"401", "404", "405"}
