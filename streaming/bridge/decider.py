"""Turns a batch into outcomes: asks the service until it answers, and rejects the items it names."""

import random
import time
from collections.abc import Sequence

import structlog

from streaming.bridge.batch import Batch
from streaming.bridge_state import BridgeState
from streaming.errors import BatchRejected, BatchTooLarge, ServiceUnavailable
from streaming.observability.metrics import Metrics
from streaming.ports import Classifier
from streaming.records import DecidedOutcome, Outcome, Rejection, Undecided
from streaming.scoring.backoff import Backoff
from streaming.scoring.precheck import precheck

log = structlog.get_logger()


class Dropped(Exception):  # noqa: N818  # not an error: somebody asked for it
    """The batch is given up: its partitions were revoked or lost, or the bridge stops."""


# An answer that one record may cause; the others (503, 429, no connection) tell of the service as a whole.
SUSPECT_REASONS = frozenset({"500", "502", "504", "answer"})
# After this many such failures the records of a request are sent in smaller parts.
SUSPECT_ATTEMPTS = 3


class _Suspect(Exception):  # noqa: N818  # an outcome of a request
    """A request failed in a way that one of its records may have caused."""


class Decider:
    """Decides batches; retries for as long as the service is unavailable.

    A record that the service fails on, although it decides others, is told apart and left undecided.

    Parameters
    ----------
    classifier : Classifier
    backoff : Backoff
        Waits between attempts while the service is unavailable.
    metrics : Metrics
    state : BridgeState
        Tells which records are held, and which a person has ordered to skip.
    """

    def __init__(
        self, classifier: Classifier, backoff: Backoff, metrics: Metrics, state: BridgeState
    ) -> None:
        self._classifier = classifier
        self._backoff = backoff
        self._metrics = metrics
        self._state = state

    def decide(self, batch: Batch) -> list[DecidedOutcome]:
        """Return one outcome for each record, in their order.

        Raises
        ------
        Dropped
            If the batch is dropped meanwhile.
        ServiceRefused
            If a person has to look at address or key.
        """
        return _BatchDecision(self._classifier, self._backoff, self._metrics, self._state, batch).run()


class _BatchDecision:
    """The state of one batch between its first request and its last."""

    def __init__(
        self, classifier: Classifier, backoff: Backoff, metrics: Metrics, state: BridgeState, batch: Batch
    ) -> None:
        self._classifier = classifier
        self._backoff = backoff
        self._metrics = metrics
        self._state = state
        self._batch = batch
        self._identities: dict[int, str | None] = {}
        self._outcomes: dict[int, DecidedOutcome] = {}
        self._attempts: dict[int, int] = {}

    def run(self) -> list[DecidedOutcome]:
        begun = time.monotonic()
        for index, record in enumerate(self._batch.records):
            found = precheck(record.value)
            if isinstance(found, Rejection):
                self._outcomes[index] = found
            else:
                self._identities[index] = found
        inspected = time.monotonic()
        self._metrics.add_stage_seconds("inspect", inspected - begun)
        self._ask(self._without_held(list(self._identities)))
        self._metrics.add_stage_seconds("classify", time.monotonic() - inspected)
        return [self._outcomes[index] for index in range(len(self._batch))]

    def _without_held(self, indexes: list[int]) -> list[int]:
        """Decide records that were held before alone, once; return what is left to ask."""
        held = self._state.held
        if not held:
            return indexes
        left = []
        for index in indexes:
            record = self._batch.records[index]
            before = held.get(record.partition)
            if before is None or before.offset != record.offset:
                left.append(index)
            elif (reason := self._state.skip_orders.get((record.partition, record.offset))) is not None:
                self._reject(index, Rejection("classify", "skipped", reason))
            else:
                self._ask_alone(index)
        return left

    def _ask_alone(self, index: int) -> None:
        try:
            self._settle([index], most_attempts=1)
        except _Suspect as error:
            self._outcomes[index] = Undecided(str(error))

    def _ask(self, indexes: list[int]) -> None:
        parts = [indexes] if indexes else []
        while parts:
            part = parts.pop()
            try:
                parts.extend(self._settle(part, SUSPECT_ATTEMPTS))
            except _Suspect as error:
                parts.extend(self._isolate(part, str(error)))

    def _settle(self, part: list[int], most_attempts: int) -> list[list[int]]:
        """Decide a part; return what has to be asked again in smaller parts."""
        try:
            decisions = self._classify(part, most_attempts)
        except BatchRejected as error:
            return self._without_culprits(part, error)
        except BatchTooLarge as error:
            return self._halved(part, Rejection("validate", "too_large", str(error)))
        self._outcomes.update(zip(part, decisions, strict=True))
        return []

    def _isolate(self, part: list[int], error: str) -> list[list[int]]:
        """Tell the record apart that the service fails on; return what is still to be asked."""
        if len(part) == 1:
            self._outcomes[part[0]] = Undecided(error)
            return []
        # Where the service fails on any record, halving would only multiply its load.
        probe = random.choice(part)  # noqa: S311  # not a secret
        rest = [index for index in part if index != probe]
        try:
            more = self._settle([probe], most_attempts=1)
        except _Suspect:
            self._backoff.wait(SUSPECT_ATTEMPTS, self._batch.dropped)
            return [part]
        middle = (len(rest) + 1) // 2
        return [half for half in (rest[middle:], rest[:middle]) if half] + more

    def _classify(self, part: list[int], most_attempts: int) -> Sequence[Outcome]:
        values = [self._batch.records[index].value or b"" for index in part]
        identities = [self._identities[index] for index in part]
        attempt = suspect_attempts = 0
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
                self._note_failure(error, attempt, part)
                suspect_attempts += error.reason in SUSPECT_REASONS
                if suspect_attempts >= most_attempts:
                    raise _Suspect(str(error)) from error
                self._backoff.wait(attempt, self._batch.dropped, error.retry_after_s)
            else:
                self._metrics.count_request(time.monotonic() - begun, len(part))
                return decisions

    def _note_failure(self, error: ServiceUnavailable, attempt: int, part: list[int]) -> None:
        self._metrics.count_failed_request(error.reason)
        if attempt & (attempt - 1) == 0:  # the 1st, 2nd, 4th, 8th…: a long outage must not fill the log
            first = self._batch.records[part[0]]
            log.warning(
                "service_unavailable",
                error=str(error),
                attempt=attempt,
                records=len(part),
                first=f"{first.topic} {first.partition}@{first.offset}",
            )

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
