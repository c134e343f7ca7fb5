"""What the gateway shows Prometheus: each metric with its name, its words, its labels and its buckets."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from bentos.compat.bulk_histogram import BulkHistogram

PREFIX = "fraud"
SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
# Fine at both ends, where the thresholds are.
SCORE_BUCKETS = (
    0.001,
    0.003,
    0.01,
    0.03,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    0.97,
    0.99,
    0.997,
    0.999,
    1.0,
)


class Counters:
    """Requests, transactions, decisions and changes of releases.

    Parameters
    ----------
    registry : CollectorRegistry
        Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        to: dict[str, Any] = {"namespace": PREFIX, "registry": registry}
        self.requests = Counter(
            "requests", "Requests to /classify that were authorized, by status.", ["status"], **to
        )
        self.refused = Counter("refused", "Requests not decided, by reason.", ["reason"], **to)
        self.transactions = Counter("transactions", "Transactions decided and answered.", **to)
        self.decisions = Counter(
            "decisions", "Decisions answered, by kind and release.", ["decision", "release"], **to
        )
        self.alarms = Counter(
            "alarms",
            "Transactions reviewed or declined, by what raised them.",
            ["raised_by", "release"],
            **to,
        )
        self.swaps = Counter(
            "release_swaps", "Changes of releases while serving, by outcome.", ["outcome"], **to
        )


class Histograms:
    """Times, batches and scores.

    Parameters
    ----------
    registry : CollectorRegistry
        Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        to: dict[str, Any] = {"namespace": PREFIX, "registry": registry}
        seconds: dict[str, Any] = {**to, "buckets": SECONDS_BUCKETS}
        rows: dict[str, Any] = {**to, "buckets": ROWS_BUCKETS}
        scores: dict[str, Any] = {**to, "buckets": SCORE_BUCKETS}
        self.seconds = BulkHistogram(
            "request_seconds", "Time from a body's last byte to its decisions; without reasons.", **seconds
        )
        self.explain_seconds = BulkHistogram(
            "explain_request_seconds",
            "Time from a body's last byte to its decisions with reasons.",
            **seconds,
        )
        self.stages = BulkHistogram(
            "stage_seconds",
            "Time spent in each stage that was reached; receive includes the caller's sending.",
            ["stage"],
            **seconds,
        )
        self.batch_rows = BulkHistogram("batch_rows", "Transactions in one call to the runners.", **rows)
        self.batch_requests = BulkHistogram(
            "batch_requests", "Requests whose transactions went in one call to the runners.", **rows
        )
        self.scores = BulkHistogram(
            "score", "Scores by model, also where the caller has gone since.", ["model"], **scores
        )
        self.probability = BulkHistogram(
            "probability", "Calibrated probability of fraud, also where the caller has gone since.", **scores
        )


class Gauges:
    """What is under way, which runners answer, and which release is served.

    Parameters
    ----------
    registry : CollectorRegistry
        Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        to: dict[str, Any] = {"namespace": PREFIX, "registry": registry}
        total = {**to, "multiprocess_mode": "livesum"}
        self.queued_rows = Gauge("queued_rows", "Transactions waiting for a call to the runners.", **total)
        self.batches_in_flight = Gauge("batches_in_flight", "Calls to the runners under way.", **total)
        self.runner_up = Gauge(
            "runner_up", "1 where the runner answers.", ["runner"], multiprocess_mode="livemin", **to
        )
        self.release = Gauge(
            "release_info",
            "1 for the release that is served.",
            ["release", "neural_net", "xgboost"],
            multiprocess_mode="livemax",
            **to,
        )
