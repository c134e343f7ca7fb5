"""Prometheus metrics of the gateway.

The runners' batch sizes are BentoML's ``bentoml_service_adaptive_batch_size``. Observations are collected in
lists and written out many at once, at the latest every second and before a scrape.
"""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import REGISTRY, CollectorRegistry

from bentos.metric_families import Counters, Gauges, Histograms
from bentos.policy import Alarm

if TYPE_CHECKING:
    from bentos.decision_message import DecisionMessage
    from bentos.policy import Floats
    from bentos.releases.release import Release

DECISIONS = ("approve", "review", "decline")
STAGES = ("receive", "decode", "queue", "runners", "policy", "encode")
# Every status and reason there is: each series starts at 0, since `rate` ignores the first value of one.
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
    "not_ready",
    "overloaded",
    "runner_unavailable",
    "scoring_failed",
    "client_gone",
    "bad_request",
    "headers_too_large",
    "slow_headers",
    "too_many_connections",
    "defect",
)
# Most observations that are collected before they are written out, which bounds memory.
MAX_PENDING = 4096


class Metrics:
    """Everything the gateway measures.

    Parameters
    ----------
    registry : CollectorRegistry, optional
        Where the metrics are registered; Prometheus's default registry if omitted.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._counters, self._histograms = Counters(registry), Histograms(registry)
        self._gauges = Gauges(registry)
        self.queued_rows, self.batches_in_flight = self._gauges.queued_rows, self._gauges.batches_in_flight
        self._start_at_zero()
        self._pending_statuses: Tally[int] = Tally()
        self._pending_times: list[tuple[bool, float, float, float]] = []
        self._pending_receive_times: list[float] = []
        self._pending_batches: list[tuple[int, int, float, float, float]] = []
        self._pending_probabilities: list[Floats] = []
        self._pending_scores: tuple[list[Floats], list[Floats]] = ([], [])
        self._pending_rows = 0
        self._decided: Tally[tuple[str, str]] = Tally()
        self._raised: Tally[tuple[bytes, str]] = Tally()
        self._served: tuple[str, str, str] | None = None

    def set_release(self, release: Release) -> None:
        """Show which release is served, and start its series at 0; the one before it shows 0 from now on."""
        if self._served is not None:
            self._gauges.release.labels(*self._served).set(0)
        self._served = (release.number, release.neural_net_tag, release.xgboost_tag)
        self._gauges.release.labels(*self._served).set(1)
        for decision in DECISIONS:
            self._counters.decisions.labels(decision, release.number)
        for alarm in Alarm:
            self._counters.alarms.labels(str(alarm.name).lower(), release.number)

    def count_swap(self, outcome: str) -> None:
        """Count a change of releases: ``swapped``, or ``refused``."""
        self._counters.swaps.labels(outcome).inc()

    def _start_at_zero(self) -> None:
        for runner in ("neural_net", "xgboost"):
            self.set_runner_up(runner, is_up=True)
        for status in STATUSES:
            self._counters.requests.labels(status)
        for reason in REASONS:
            self._counters.refused.labels(reason)
        for outcome in ("swapped", "refused"):
            self._counters.swaps.labels(outcome)
        for stage in STAGES:
            self._histograms.stages.labels(stage)
        for model in ("neural_net", "xgboost"):
            self._histograms.scores.labels(model)

    def set_runner_up(self, runner: str, is_up: bool) -> None:
        """Show whether `runner` answers."""
        self._gauges.runner_up.labels(runner).set(is_up)

    def count_request(self, status: int, receive_s: float | None) -> None:
        """Count one authorized request; `receive_s` is None where its body was not read to the end."""
        self._pending_statuses[status] += 1
        if receive_s is not None:
            self._pending_receive_times.append(receive_s)

    def record_answer(
        self,
        decisions: Sequence[DecisionMessage],
        *,
        is_explained: bool,
        total_s: float,
        decode_s: float,
        encode_s: float,
    ) -> None:
        """Count what was decided and answered, and collect the times that it took."""
        release = decisions[0].release  # an answer is one release's
        kinds = [decision.decision for decision in decisions]
        for kind in DECISIONS:
            if number := kinds.count(kind):
                self._decided[kind, release] += number
        if kinds.count("approve") < len(kinds):
            for decision in decisions:
                if decision.decision != "approve":
                    self._raised[bytes(decision.raised_by), release] += 1
        self._pending_times.append((is_explained, total_s, decode_s, encode_s))
        if len(self._pending_times) >= MAX_PENDING:
            self.flush()

    def count_refusal(self, reason: str) -> None:
        """Count one request that was not decided."""
        self._counters.refused.labels(reason).inc()

    def record_batch(
        self, rows: int, requests: int, queue_s: float, runners_s: float, policy_s: float
    ) -> None:
        """Collect the size and times of one call to the runners; `queue_s` is its longest wait."""
        self._pending_batches.append((rows, requests, queue_s, runners_s, policy_s))

    def record_scores(self, neural_net: Floats, xgboost: Floats, probability: Floats) -> None:
        """Collect scores and what they say together."""
        self._pending_scores[0].append(neural_net)
        self._pending_scores[1].append(xgboost)
        self._pending_probabilities.append(probability)
        self._pending_rows += len(probability)
        if self._pending_rows >= MAX_PENDING:
            self.flush()

    def flush(self) -> None:
        """Write out what was collected; called before a scrape and every second."""
        self._flush_requests()
        self._flush_decisions()
        self._flush_batches()
        self._flush_scores()

    def _flush_requests(self) -> None:
        for status, number in self._pending_statuses.items():
            self._counters.requests.labels(str(status)).inc(number)
        self._pending_statuses.clear()
        self._histograms.stages.labels("receive").observe_many(self._pending_receive_times)
        self._pending_receive_times = []

    def _flush_decisions(self) -> None:
        pending, self._pending_times = self._pending_times, []
        if not pending:
            return
        for is_explained, histogram in (
            (False, self._histograms.seconds),
            (True, self._histograms.explain_seconds),
        ):
            histogram.observe_many([total for explained, total, *_ in pending if explained == is_explained])
        for position, stage in ((2, "decode"), (3, "encode")):
            self._histograms.stages.labels(stage).observe_many([times[position] for times in pending])
        for (decision, release), number in self._decided.items():
            self._counters.decisions.labels(decision, release).inc(number)
        self._counters.transactions.inc(self._decided.total())
        for (raised_by, release), number in self._raised.items():
            for alarm in json.loads(raised_by):
                self._counters.alarms.labels(alarm, release).inc(number)
        self._decided.clear()
        self._raised.clear()

    def _flush_batches(self) -> None:
        pending, self._pending_batches = self._pending_batches, []
        if not pending:
            return
        rows, requests, *stages = zip(*pending, strict=True)
        self._histograms.batch_rows.observe_many(rows)
        self._histograms.batch_requests.observe_many(requests)
        for stage, times in zip(("queue", "runners", "policy"), stages, strict=True):
            self._histograms.stages.labels(stage).observe_many(times)

    def _flush_scores(self) -> None:
        if not self._pending_rows:
            return
        for model, pending in zip(("neural_net", "xgboost"), self._pending_scores, strict=True):
            self._histograms.scores.labels(model).observe_many(np.concatenate(pending))
        self._histograms.probability.observe_many(np.concatenate(self._pending_probabilities))
        self._pending_scores, self._pending_probabilities = ([], []), []
        self._pending_rows = 0
