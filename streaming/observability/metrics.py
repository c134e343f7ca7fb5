"""What the bridge shows of itself: Prometheus metrics, and the figures of the summary line."""

import threading
import time
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from streaming.records import InputRecord, Outcome, Rejection

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
# What is known to be possible, so that each counts from 0: `rate` does not see what a series starts with.
# Reasons that the service gives for an item join as they come.
STAGES = ("fetch", "inspect", "classify", "write", "send", "acknowledge", "offsets", "commit")
RETRIES = ("timeout", "connect", "transport", "answer", "408", "425", "429", "500", "502", "503", "504")
DEAD = {
    "parse": (
        *("tombstone", "empty", "not_utf8", "not_json", "not_object"),
        *("too_deep", "number_out_of_range", "duplicate_key"),
    ),
    "validate": ("too_large",),
    "classify": ("rejected",),
}
DECISIONS = ("approve", "review", "decline")
RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class InFlight(Protocol):
    """What the metrics look at in a pipeline."""

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest record inside was produced, milliseconds since 1970."""

    def __len__(self) -> int:
        """Return the batches inside."""


class Metrics:
    """Counters, gauges and histograms of one bridge.

    Parameters
    ----------
    registry : CollectorRegistry, optional
        Where they are registered; a new one by default.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.summary = Summary()
        self._releases: set[str] = set()
        self._define()
        self._begin_at_zero()
        self.last_turn = time.monotonic()
        self.last_progress = time.monotonic()
        self.waiting = 0
        self._lag_partitions: set[int] = set()
        self.is_assigned = False
        self.stopped_by: str | None = None

    def _define(self) -> None:
        registry = self.registry
        self._decided = Counter(
            "bridge_records_decided", "Records decided", ["decision", "release"], registry=registry
        )
        self._dead = Counter("bridge_dead_letters", "Dead letters", ["stage", "reason"], registry=registry)
        self._batch = Histogram(
            "bridge_batch_records", "Records in one request", buckets=RECORDS, registry=registry
        )
        self._request = Histogram(
            "bridge_request_seconds", "Answered requests to the service", buckets=SECONDS, registry=registry
        )
        self._retries = Counter(
            "bridge_retries", "Requests to the service that will be repeated", ["reason"], registry=registry
        )
        self._transactions = Counter("bridge_transactions", "Transactions", ["outcome"], registry=registry)
        self._publish = Histogram(
            "bridge_transaction_seconds", "Committed transactions", buckets=SECONDS, registry=registry
        )
        self._latency = Histogram(
            "bridge_produced_to_decided_seconds",
            "From the record's timestamp to its decision committed",
            buckets=SECONDS,
            registry=registry,
        )
        self._stages = Counter(
            "bridge_stage_seconds", "Time spent, by stage; stages overlap", ["stage"], registry=registry
        )
        self._paused = Counter("bridge_paused_seconds", "Time with fetching paused", registry=registry)
        self._rebalances = Counter(
            "bridge_rebalances", "Rebalances by what they did", ["kind"], registry=registry
        )
        self._lag = Gauge("bridge_lag_records", "Records not fetched yet", ["partition"], registry=registry)
        self._in_flight = Gauge(
            "bridge_batches_in_flight", "Batches fetched, not committed", registry=registry
        )
        self._oldest = Gauge(
            "bridge_oldest_in_flight_seconds", "Age of the oldest of them", registry=registry
        )
        self._committed = Gauge(
            "bridge_last_commit_timestamp_seconds", "Unix time of the last commit", registry=registry
        )

    def _begin_at_zero(self) -> None:
        for metric, known in (
            (self._stages, STAGES),
            (self._retries, RETRIES),
            (self._transactions, ("committed", "aborted")),
            (self._rebalances, ("assigned", "revoked", "lost")),
        ):
            for label in known:
                metric.labels(label)
        for stage, reasons in DEAD.items():
            for reason in reasons:
                self._dead.labels(stage, reason)

    def _begin_release(self, release: str) -> None:
        # A release's rare decisions count from 0 from its first decision on.
        if release not in self._releases:
            self._releases.add(release)
            for decision in DECISIONS:
                self._decided.labels(decision, release)

    def request_answered(self, seconds: float, records: int) -> None:
        """Note a request that brought verdicts."""
        self._request.observe(seconds)
        self._batch.observe(records)
        self.summary.add(requests=1, request_s=seconds)

    def request_failed(self, reason: str) -> None:
        """Note a request that will be repeated."""
        self._retries.labels(reason).inc()
        self.summary.add(retries=1)

    def published(self, outcomes: Sequence[tuple[InputRecord, Outcome]], seconds: float) -> None:
        """Note a committed transaction."""
        now = time.time()
        kinds: Tally[tuple[str, ...]] = Tally()
        for record, outcome in outcomes:
            if isinstance(outcome, Rejection):
                kinds["dead", outcome.stage, outcome.reason] += 1
            else:
                kinds["decided", outcome.decision, outcome.release] += 1
            self._latency.observe(now - record.timestamp_ms / 1000)
        for (kind, *labels), count in kinds.items():
            if kind == "decided":
                self._begin_release(labels[1])
            (self._dead if kind == "dead" else self._decided).labels(*labels).inc(count)
        self._transactions.labels("committed").inc()
        self._publish.observe(seconds)
        self._committed.set(now)
        self.last_progress = time.monotonic()
        dead = sum(count for (kind, *_), count in kinds.items() if kind == "dead")
        self.summary.add(
            decided=len(outcomes) - dead, dead_letters=dead, transactions=1, transaction_s=seconds
        )

    def spent(self, stage: str, seconds: float) -> None:
        """Note time spent in a stage."""
        self._stages.labels(stage).inc(seconds)

    def aborted(self) -> None:
        """Note a transaction that was given up."""
        self._transactions.labels("aborted").inc()
        self.summary.add(aborted=1)

    def paused(self, seconds: float) -> None:
        """Note time with fetching paused."""
        self._paused.inc(seconds)
        self.summary.add(paused_s=seconds)

    def rebalanced(self, kind: str) -> None:
        """Note that partitions were assigned, revoked or lost."""
        self._rebalances.labels(kind).inc()
        self.is_assigned = kind != "lost"
        self.summary.add(rebalances=1)

    def lag(self, lags: Mapping[int, int]) -> None:
        """Note the records not fetched yet, by partition."""
        # Cleared and set again, the partitions would be missing from a scrape in between.
        for gone in self._lag_partitions - lags.keys():
            self._lag.remove(str(gone))
        for partition, records in lags.items():
            self._lag.labels(str(partition)).set(records)
        self._lag_partitions = set(lags)
        self.waiting = sum(lags.values())

    def turned(self, pipeline: InFlight) -> None:
        """Note that the loop is alive, and what it holds."""
        self.last_turn = time.monotonic()
        held = len(pipeline)
        oldest = pipeline.oldest_ms
        self._in_flight.set(held)
        self._oldest.set(max(0.0, time.time() - oldest / 1000) if oldest is not None else 0.0)
        if not held and not self.waiting:
            self.last_progress = self.last_turn


class Summary:
    """Sums since the last summary line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: Tally[str] = Tally()
        self._since = time.monotonic()

    def add(self, **amounts: float) -> None:
        """Add amounts by name."""
        with self._lock:
            self._sums.update(amounts)

    def take(self) -> dict[str, float]:
        """Return the sums and begin anew; means in milliseconds instead of sums of seconds."""
        with self._lock:
            sums, self._sums = self._sums, Tally()
            elapsed, self._since = time.monotonic() - self._since, time.monotonic()
        done = sums["decided"] + sums["dead_letters"]
        return {
            "decided": sums["decided"],
            "dead_letters": sums["dead_letters"],
            "per_second": round(done / elapsed, 1) if elapsed else 0.0,
            "transactions": sums["transactions"],
            "aborted": sums["aborted"],
            "retries": sums["retries"],
            "paused_s": round(sums["paused_s"], 3),
            "rebalances": sums["rebalances"],
            "request_ms": _mean_ms(sums["request_s"], sums["requests"]),
            "transaction_ms": _mean_ms(sums["transaction_s"], sums["transactions"]),
        }


def _mean_ms(seconds: float, count: float) -> float:
    return round(1000 * seconds / count, 2) if count else 0.0
