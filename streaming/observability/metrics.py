"""The Prometheus metrics of a bridge."""

import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from streaming.observability.new_series import HeldCounts
from streaming.observability.summary import Summary
from streaming.records import InputRecord, Outcome, Rejection

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
# After an outage decisions are minutes or hours late, and the picture must show how late.
DELAY_SECONDS = (*SECONDS, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0)
# Label values that are known in advance start at 0: `rate` does not see the value a series starts with.
# Reasons that the service gives for an item are added when they first occur.
STAGES = ("fetch", "inspect", "classify", "write", "send", "acknowledge", "offsets", "commit")
KNOWN_RETRIES = ("timeout", "connect", "transport", "answer", "408", "425", "429", "500", "502", "503", "504")
KNOWN_REJECTIONS = {
    "parse": (
        *("tombstone", "empty", "not_utf8", "not_json", "not_object"),
        *("too_deep", "number_out_of_range", "duplicate_key"),
    ),
    "validate": ("too_large",),
    "classify": ("rejected", "decision_too_large", "skipped"),
}
DECISIONS = ("approve", "review", "decline")
RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class InFlight(Protocol):
    """What the metrics look at in a pipeline."""

    @property
    def oldest_timestamp_ms(self) -> int | None:
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
        ProcessCollector(registry=self.registry)  # its memory and processor time
        self.summary = Summary()
        self._releases: set[str] = set()
        self._define_outcomes()
        self._define_progress()
        self._begin_at_zero()
        self._lag_partitions: set[int] = set()

    def _define_outcomes(self) -> None:
        registry = self.registry
        self._decided = Counter(
            "bridge_records_decided", "Records decided", ["decision", "release"], registry=registry
        )
        self._new_releases = HeldCounts(self._decided)
        registry.register(self._new_releases)
        self._dead = Counter("bridge_dead_letters", "Dead letters", ["stage", "reason"], registry=registry)
        self._batch = Histogram(
            "bridge_batch_records",
            "Records in one request to the service",
            buckets=RECORDS,
            registry=registry,
        )
        self._request = Histogram(
            "bridge_request_seconds",
            "Time of a request that the service answered",
            buckets=SECONDS,
            registry=registry,
        )
        self._retries = Counter(
            "bridge_retries", "Requests to the service that will be repeated", ["reason"], registry=registry
        )
        self._transactions = Counter(
            "bridge_transactions", "Kafka transactions, by outcome", ["outcome"], registry=registry
        )
        self._publish = Histogram(
            "bridge_transaction_seconds",
            "Time of a committed transaction",
            buckets=SECONDS,
            registry=registry,
        )
        self._latency = Histogram(
            "bridge_produced_to_decided_seconds",
            "Time from the record's timestamp to the commit of its outcome",
            buckets=DELAY_SECONDS,
            registry=registry,
        )

    def _define_progress(self) -> None:
        registry = self.registry
        self._stages = Counter(
            "bridge_stage_seconds", "Time spent in each stage; stages overlap", ["stage"], registry=registry
        )
        self._paused = Counter(
            "bridge_paused_seconds",
            "Time with fetching paused because the pipeline was full",
            registry=registry,
        )
        self._rebalances = Counter(
            "bridge_rebalances", "Rebalances, by what happened to the partitions", ["kind"], registry=registry
        )
        self._skipped = Counter(
            "bridge_records_skipped",
            "Records that were gone before they were decided",
            ["partition", "reason"],
            registry=registry,
        )
        self._held = Gauge(
            "bridge_partitions_held",
            "Partitions that stand at a record without an outcome",
            registry=registry,
        )
        self._lag = Gauge(
            "bridge_lag_records",
            "Records that are not fetched yet; a partition that nobody reads is told by one bridge",
            ["partition"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "bridge_batches_in_flight", "Batches between fetched and committed", registry=registry
        )
        # Its age is told when it is asked for: a bridge that waits for a broker sets nothing meanwhile.
        self._oldest_s: float | None = None
        Gauge(
            "bridge_oldest_in_flight_seconds",
            "Age of the oldest record between fetched and committed",
            registry=registry,
        ).set_function(self._oldest_age_s)
        self._committed = Gauge(
            "bridge_last_commit_timestamp_seconds", "Unix time of the last commit", registry=registry
        )

    def watch(self, failure: Callable[[], str | None], silence_s: Callable[[], float]) -> None:
        """Show what is asked at each scrape.

        Parameters
        ----------
        failure : callable
            Why the bridge is not ready, or None.
        silence_s : callable
            Since when the brokers have not answered, seconds.
        """
        ready = Gauge("bridge_ready", "1 where /readyz answers 200, else 0", registry=self.registry)
        ready.set_function(lambda: float(failure() is None))
        silence = Gauge(
            "bridge_broker_silence_seconds",
            "Time since the group's coordinator and every assigned partition's leader last answered; the lag "
            "is as old",
            registry=self.registry,
        )
        silence.set_function(silence_s)

    def _begin_at_zero(self) -> None:
        for metric, known in (
            (self._stages, STAGES),
            (self._retries, KNOWN_RETRIES),
            (self._transactions, ("committed", "aborted")),
            (self._rebalances, ("assigned", "revoked", "lost")),
        ):
            for label in known:
                metric.labels(label)
        for stage, reasons in KNOWN_REJECTIONS.items():
            for reason in reasons:
                self._dead.labels(stage, reason)

    def _begin_release(self, release: str) -> None:
        """Start the series of a release at 0; of one that follows another, a scrape sees them there first."""
        if release not in self._releases:
            for decision in DECISIONS:
                self._decided.labels(decision, release)
            if self._releases:
                self._new_releases.hold(release)
            self._releases.add(release)

    def count_request(self, seconds: float, records: int) -> None:
        """Note a request that brought decisions."""
        self._request.observe(seconds)
        self._batch.observe(records)
        self.summary.add(requests=1, request_s=seconds)

    def count_failed_request(self, reason: str) -> None:
        """Note a request that will be repeated."""
        self._retries.labels(reason).inc()
        self.summary.add(retries=1)

    def count_transaction(self, outcomes: Sequence[tuple[InputRecord, Outcome]], seconds: float) -> None:
        """Note a committed transaction."""
        now = time.time()
        kinds: Tally[tuple[str, ...]] = Tally()
        for record, outcome in outcomes:
            if isinstance(outcome, Rejection):
                kinds["dead", outcome.stage, outcome.reason] += 1
            else:
                kinds["decided", outcome.decision, outcome.release] += 1
            if record.timestamp_ms > 0:  # -1: the producer gave none
                self._latency.observe(max(0.0, now - record.timestamp_ms / 1000))  # clocks differ
        for (kind, *labels), count in kinds.items():
            if kind == "decided":
                self._begin_release(labels[1])
                self._new_releases.count(labels[1], tuple(labels), count)
            else:
                self._dead.labels(*labels).inc(count)
        self._transactions.labels("committed").inc()
        self._publish.observe(seconds)
        self._committed.set(now)
        dead = sum(count for (kind, *_), count in kinds.items() if kind == "dead")
        self.summary.add(
            decided=len(outcomes) - dead, dead_letters=dead, transactions=1, transaction_s=seconds
        )

    def add_stage_seconds(self, stage: str, seconds: float) -> None:
        """Note time spent in a stage."""
        self._stages.labels(stage).inc(seconds)

    def count_aborted(self) -> None:
        """Note a transaction that was given up."""
        self._transactions.labels("aborted").inc()
        self.summary.add(aborted=1)

    def add_paused_seconds(self, seconds: float) -> None:
        """Note time with fetching paused."""
        self._paused.inc(seconds)
        self.summary.add(paused_s=seconds)

    def count_rebalance(self, kind: str) -> None:
        """Note that partitions were assigned, revoked or lost."""
        self._rebalances.labels(kind).inc()
        self.summary.add(rebalances=1)

    def count_skipped(self, partition: int, reason: str, records: int) -> None:
        """Count records of the input that were gone before they were decided."""
        self._skipped.labels(str(partition), reason).inc(records)

    def show_held(self, partitions: int) -> None:
        """Set the number of partitions that stand at a record without an outcome."""
        self._held.set(partitions)

    def show_lag(self, lags: Mapping[int, int]) -> None:
        """Note the records not fetched yet, by partition."""
        # Cleared and set again, the partitions would be missing from a scrape in between.
        for gone in self._lag_partitions - lags.keys():
            self._lag.remove(str(gone))
        for partition, records in lags.items():
            self._lag.labels(str(partition)).set(records)
        self._lag_partitions = set(lags)

    def show_in_flight(self, pipeline: InFlight) -> None:
        """Set the gauges of what is between fetched and committed."""
        oldest = pipeline.oldest_timestamp_ms
        self._in_flight.set(len(pipeline))
        is_known = oldest is not None and oldest > 0  # -1: the producer gave none
        self._oldest_s = (oldest or 0) / 1000 if is_known else None

    def _oldest_age_s(self) -> float:
        oldest_s = self._oldest_s  # read once: the bridge's thread sets it
        return max(0.0, time.time() - oldest_s) if oldest_s is not None else 0.0
