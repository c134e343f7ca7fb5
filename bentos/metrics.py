"""What the gateway tells Prometheus.

The runners' batch sizes are BentoML's ``bentoml_service_adaptive_batch_size``. Observations are kept in
lists and handed over many at once: a histogram's own ``observe`` costs 2 µs, and a list of 1000
transactions has 3,000 scores to tell.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from bentos.policy import Floats
    from bentos.release import Release

PREFIX = "fraud"
SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
# Fine at both ends, where the decisions are.
SHARES = (
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
STAGES = ("receive", "decode", "queue", "runners", "policy", "encode")
# Every status and reason there is, so that each counts from 0: `rate` does not see what a series starts with.
STATUSES = ("200", "400", "408", "413", "415", "500", "503")
REASONS = (
    "invalid_transaction",
    "empty_list",
    "duplicate_key",
    "encoding",
    "not_json",
    "query",
    "unauthorized",
    "not_found",
    "method",
    "slow_body",
    "body_too_large",
    "list_too_long",
    "media_type",
    "overloaded",
    "runner_unavailable",
    "scoring_failed",
    "client_gone",
    "defect",
)
# Observations kept before they are handed over, so that memory stays bounded between two scrapes.
MAX_KEPT = 4096


class ManyHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def observe_many(self, values: Sequence[float] | Floats) -> None:
        """Observe each of `values`."""
        array = np.asarray(values, np.float64)
        places = np.searchsorted(np.asarray(self._upper_bounds), array, side="left")
        counts = np.bincount(places, minlength=len(self._upper_bounds))
        for place in np.flatnonzero(counts):
            self._buckets[place].inc(int(counts[place]))
        self._sum.inc(float(array.sum()))


class Metrics:
    """Everything the gateway measures.

    Parameters
    ----------
    registry : CollectorRegistry, optional
        Where the metrics are registered; Prometheus's default registry if omitted.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        to: dict[str, Any] = {"namespace": PREFIX}
        if registry is not None:
            to["registry"] = registry
        self._requests = Counter("requests", "Requests let in to /classify, by status.", ["status"], **to)
        self._refused = Counter("refused", "Requests not decided, by reason.", ["reason"], **to)
        self._transactions = Counter("transactions", "Transactions decided.", **to)
        self._decisions = Counter(
            "decisions", "Decisions by kind and release.", ["decision", "release"], **to
        )
        self._seconds = ManyHistogram("request_seconds", "Time to answer /classify.", buckets=SECONDS, **to)
        self._stages = ManyHistogram(
            "stage_seconds", "Time spent by stage.", ["stage"], buckets=SECONDS, **to
        )
        self._batch_rows = ManyHistogram("batch_rows", "Transactions in one hop.", buckets=ROWS, **to)
        self._batch_requests = ManyHistogram("batch_requests", "Requests in one hop.", buckets=ROWS, **to)
        self._scores = ManyHistogram("score", "Scores by model.", ["model"], buckets=SHARES, **to)
        self._probability = ManyHistogram("probability", "Calibrated probability.", buckets=SHARES, **to)
        live = {"multiprocess_mode": "livesum", **to}
        self.queued_rows = Gauge("queued_rows", "Transactions waiting for a hop.", **live)
        self.batches_in_flight = Gauge("batches_in_flight", "Hops under way.", **live)
        self._runner_up = Gauge(
            "runner_up", "1 where the runner answers.", ["runner"], **{**live, "multiprocess_mode": "livemin"}
        )
        self._release = Gauge(
            "release_info",
            "1 for what is served.",
            ["release", "neural_net", "xgboost"],
            **{**live, "multiprocess_mode": "livemax"},
        )
        self._kept_times: list[tuple[int, float, float, float, float]] = []
        self._kept_batches: list[tuple[int, int, float, float, float]] = []
        self._kept_probabilities: list[Floats] = []
        self._kept_scores: tuple[list[Floats], list[Floats]] = ([], [])
        self._kept_rows = 0
        self._decided: Tally[str] = Tally()
        self._number = ""

    def serve(self, release: Release) -> None:
        """Say which release is served."""
        self._number = release.number
        self._release.labels(release.number, release.neural_net_tag, release.xgboost_tag).set(1)
        for runner in ("neural_net", "xgboost"):
            self.runner_changed(runner, is_up=True)
        for decision in ("approve", "review", "decline"):
            self._decisions.labels(decision, release.number)
        for status in STATUSES:
            self._requests.labels(status)
        for reason in REASONS:
            self._refused.labels(reason)

    def runner_changed(self, runner: str, is_up: bool) -> None:
        """Say whether `runner` answers."""
        self._runner_up.labels(runner).set(is_up)

    def answered(
        self, status: int, total_s: float, receive_s: float, decode_s: float, encode_s: float
    ) -> None:
        """Count one answer and keep its times; a stage that was not reached took 0 s."""
        self._kept_times.append((status, total_s, receive_s, decode_s, encode_s))
        if len(self._kept_times) >= MAX_KEPT:
            self.hand_over()

    def refused(self, reason: str) -> None:
        """Count one request that was not decided."""
        self._refused.labels(reason).inc()

    def batch(self, rows: int, requests: int, queue_s: float, runners_s: float, policy_s: float) -> None:
        """Keep the size and times of one hop; `queue_s` is its longest wait."""
        self._kept_batches.append((rows, requests, queue_s, runners_s, policy_s))

    def scored(self, neural_net: Floats, xgboost: Floats, probability: Floats, counts: Sequence[int]) -> None:
        """Keep scores and the number of approvals, reviews and declines among them."""
        self._kept_scores[0].append(neural_net)
        self._kept_scores[1].append(xgboost)
        self._kept_probabilities.append(probability)
        self._decided.update(dict(zip(("approve", "review", "decline"), counts, strict=True)))
        self._kept_rows += len(probability)
        if self._kept_rows >= MAX_KEPT:
            self.hand_over()

    def hand_over(self) -> None:
        """Give what was kept to Prometheus; called before a scrape and every second."""
        self._hand_over_times()
        self._hand_over_batches()
        self._hand_over_scores()

    def _hand_over_times(self) -> None:
        kept, self._kept_times = self._kept_times, []
        if not kept:
            return
        statuses, totals, *stages = zip(*kept, strict=True)
        for status, number in Tally(statuses).items():
            self._requests.labels(str(status)).inc(number)
        self._seconds.observe_many(totals)
        for stage, times in zip(("receive", "decode", "encode"), stages, strict=True):
            self._stages.labels(stage).observe_many(times)

    def _hand_over_batches(self) -> None:
        kept, self._kept_batches = self._kept_batches, []
        if not kept:
            return
        rows, requests, *stages = zip(*kept, strict=True)
        self._batch_rows.observe_many(rows)
        self._batch_requests.observe_many(requests)
        for stage, times in zip(("queue", "runners", "policy"), stages, strict=True):
            self._stages.labels(stage).observe_many(times)

    def _hand_over_scores(self) -> None:
        if not self._kept_rows:
            return
        for model, kept in zip(("neural_net", "xgboost"), self._kept_scores, strict=True):
            self._scores.labels(model).observe_many(np.concatenate(kept))
        self._probability.observe_many(np.concatenate(self._kept_probabilities))
        for decision, number in self._decided.items():
            self._decisions.labels(decision, self._number).inc(number)
        self._transactions.inc(self._kept_rows)
        self._kept_scores, self._kept_probabilities = ([], []), []
        self._kept_rows = 0
        self._decided.clear()
