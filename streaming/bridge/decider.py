"""Turns a batch into outcomes: asks the service until it answers, and rejects the items it names."""

import time
from collections.abc import Sequence

import structlog

from streaming.bridge.batch import Batch
from streaming.errors import BatchRejected, BatchTooLarge, ServiceUnavailable
from streaming.observability.metrics import Metrics
from streaming.ports import Classifier
from streaming.records import Outcome, Rejection
from streaming.scoring.backoff import Backoff
from streaming.scoring.precheck import precheck

log = structlog.get_logger()


class Dropped(Exception):  # noqa: N818  # not an error: somebody asked for it
    """The batch is given up: its partitions were revoked or lost, or the bridge stops."""


class Decider:
    """Decides batches; retries for as long as the service is unavailable.

    Parameters
    ----------
    classifier : Classifier
    backoff : Backoff
        Waits between attempts while the service is unavailable.
    metrics : Metrics
    """

    def __init__(self, classifier: Classifier, backoff: Backoff, metrics: Metrics) -> None:
        self._classifier = classifier
        self._backoff = backoff
        self._metrics = metrics

    def decide(self, batch: Batch) -> list[Outcome]:
        """Return one outcome for each record, in their order.

        Raises
        ------
        Dropped
            If the batch is dropped meanwhile.
        ServiceRefused
            If a person has to look at address or key.
        """
        return _BatchDecision(self._classifier, self._backoff, self._metrics, batch).run()


class _BatchDecision:
    """The state of one batch between its first request and its last."""

    def __init__(self, classifier: Classifier, backoff: Backoff, metrics: Metrics, batch: Batch) -> None:
        self._classifier = classifier
        self._backoff = backoff
        self._metrics = metrics
        self._batch = batch
        self._identities: dict[int, str | None] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._attempts: dict[int, int] = {}

    def run(self) -> list[Outcome]:
        begun = time.monotonic()
        for index, record in enumerate(self._batch.records):
            found = precheck(record.value)
            if isinstance(found, Rejection):
                self._outcomes[index] = found
            else:
                self._identities[index] = found
        inspected = time.monotonic()
        self._metrics.add_stage_seconds("inspect", inspected - begun)
        self._ask(list(self._identities))
        self._metrics.add_stage_seconds("classify", time.monotonic() - inspected)
        return [self._outcomes[index] for index in range(len(self._batch))]

    def _ask(self, indexes: list[int]) -> None:
        parts = [indexes] if indexes else []
        while parts:
            part = parts.pop()
            try:
                decisions = self._classify(part)
            except BatchRejected as error:
                parts.extend(self._without_culprits(part, error))
            except BatchTooLarge as error:
                parts.extend(self._halved(part, Rejection("validate", "too_large", str(error))))
            else:
                self._outcomes.update(zip(part, decisions, strict=True))

    def _classify(self, part: list[int]) -> Sequence[Outcome]:
        values = [self._batch.records[index].value or b"" for index in part]
        identities = [self._identities[index] for index in part]
        attempt = 0
        while True:
            if self._batch.dropped.is_set():
                raise Dropped
            attempt += 1
            for index in part:
                self._attempts[index] = self._attempts.get(index, 0) + 1
            begun = time.monotonic()
            try:
                decisions = self._classifier.classify(values, identities)
            except ServiceUnavailable as error:
                self._note_failure(error, attempt)
                self._backoff.wait(attempt, self._batch.dropped, error.retry_after_s)
            else:
                self._metrics.count_request(time.monotonic() - begun, len(part))
                return decisions

    def _note_failure(self, error: ServiceUnavailable, attempt: int) -> None:
        self._metrics.count_failed_request(error.reason)
        if attempt & (attempt - 1) == 0:  # the 1st, 2nd, 4th, 8th…: a long outage must not fill the log
            log.warning("service_unavailable", error=str(error), attempt=attempt)

    def _without_culprits(self, part: list[int], error: BatchRejected) -> list[list[int]]:
        culprits = {item.position: item for item in error.items if 0 <= item.position < len(part)}
        if not culprits:
            # The service cannot say which: halve until it is alone.
            return self._halved(part, Rejection("classify", "rejected", str(error)))
        for position, item in culprits.items():
            self._reject(part[position], Rejection("validate", item.reason, item.message))
        rest = [index for position, index in enumerate(part) if position not in culprits]
        return [rest] if rest else []

    def _halved(self, part: list[int], rejection: Rejection) -> list[list[int]]:
        if len(part) == 1:
            self._reject(part[0], rejection)
            return []
        middle = len(part) // 2
        return [part[middle:], part[:middle]]

    def _reject(self, index: int, why: Rejection) -> None:
        attempts = self._attempts.get(index, 0)
        self._outcomes[index] = Rejection(why.stage, why.reason, why.message, attempts)
