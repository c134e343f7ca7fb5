# ruff: noqa: ANN401  # kafka-python is untyped
"""Asks the broker what `choose_start` has to know, and tells of every jump."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from kafka import TopicPartition
from kafka import errors as kafka_errors

from streaming.broker.compat import kafka_internals
from streaming.broker.group.decided_offsets import find_decided_offsets
from streaming.broker.group.start_offsets import (
    TOPIC_ID,
    CommittedOffset,
    Log,
    StartOffset,
    choose_start,
    describe_truncation,
)
from streaming.errors import BrokerUnavailable, OffsetGap
from streaming.settings.load import Settings

log = structlog.get_logger()

# After a broker's failure the new leader may know a lower end for a moment.
TRUNCATION_PATIENCE_S = 15.0

Starts = dict[TopicPartition, StartOffset]
"""Partition to where it begins."""


class StartFinder:
    """Finds where a group begins in its partitions.

    Parameters
    ----------
    settings : Settings
    consumer : kafka.KafkaConsumer
        A member of the group.
    on_skipped : callable
        Called with partition, reason and number of records that are gone undecided.
    """

    def __init__(
        self, settings: Settings, consumer: Any, on_skipped: Callable[[int, str, int], None]
    ) -> None:
        self._settings = settings
        self._topic = settings.topics.input
        self._consumer = consumer
        self._on_skipped = on_skipped
        self._too_short_since: dict[int, float] = {}  # by partition
        # Where partitions without a commit began. Outcomes and commits come together: as long as there is no
        # commit nothing has been decided since, and the output topics need not be asked again.
        self._begun: dict[TopicPartition, CommittedOffset] = {}

    def find(self, tps: Sequence[TopicPartition], topic_id: str) -> Starts:
        """Return where each partition begins.

        Of a partition without a leader nobody can tell what there is: it begins at its committed offset, and
        the broker refuses that later, where it is not there any more.

        Raises
        ------
        BrokerUnavailable
            If the broker does not tell in time.
        OffsetGap
            If committed records are gone, and that is not accepted.
        """
        committed = {tp: self._read_committed(tp) for tp in tps}
        for tp, offset in committed.items():
            if offset is not None:
                self._begun.pop(tp, None)
        committed |= {tp: self._begun[tp] for tp in tps if tp in self._begun}
        waiting = {
            tp: StartOffset(known.offset, known.leader_epoch)
            for tp, known in committed.items()
            if known is not None and not kafka_internals.has_leader(self._consumer, tp)
        }
        answering = [tp for tp in tps if tp not in waiting]
        return waiting | (self._choose(answering, committed, topic_id) if answering else {})

    def _choose(
        self,
        tps: Sequence[TopicPartition],
        committed: dict[TopicPartition, CommittedOffset | None],
        topic_id: str,
    ) -> Starts:
        first = self._list(self._consumer.beginning_offsets, tps)
        end = self._list(self._consumer.end_offsets, tps)
        missing = [tp.partition for tp in tps if committed[tp] is None]
        decided = find_decided_offsets(self._settings, missing) if missing else {}
        logs = {tp: Log(self._topic, tp.partition, first[tp], end[tp], topic_id) for tp in tps}
        starts: Starts = {}
        errors: list[BrokerUnavailable | OffsetGap] = []
        for tp in tps:
            try:
                starts[tp] = self._choose_patiently(logs[tp], committed[tp], decided.get(tp.partition))
            except (BrokerUnavailable, OffsetGap) as error:
                errors.append(error)  # the others are waited for meanwhile
        if errors:
            raise errors[0]
        for tp, start in starts.items():
            known = committed[tp]
            self._report(logs[tp], known.offset if known else decided.get(tp.partition, 0), start)
            if known is None:
                self._begun[tp] = CommittedOffset(start.offset, start.leader_epoch, topic_id)
        return starts

    def _choose_patiently(
        self, partition: Log, committed: CommittedOffset | None, decided_until: int | None
    ) -> StartOffset:
        try:
            start = choose_start(partition, committed, decided_until, accept_gap=False)
        except OffsetGap as error:
            now = time.monotonic()
            since = self._too_short_since.setdefault(partition.partition, now)
            if now - since < TRUNCATION_PATIENCE_S:
                raise BrokerUnavailable(f"Waiting for the leader: {error}") from error
            if not self._settings.bridge.accept_gap:
                raise
            return choose_start(partition, committed, decided_until, accept_gap=True)
        self._too_short_since.pop(partition.partition, None)
        return start

    def after_truncation(self, tp: TopicPartition, position: int, agreed: int | None) -> StartOffset:
        """Return where a partition goes on whose log was cut before `position` and has grown again.

        Parameters
        ----------
        tp : TopicPartition
        position : int
            The offset read next.
        agreed : int or None
            Up to where the log is as it was read; None where the leader does not tell.

        Raises
        ------
        BrokerUnavailable
            If the broker does not tell in time.
        OffsetGap
            If that is not accepted.
        """
        first = self._list(self._consumer.beginning_offsets, [tp])[tp]
        end = self._list(self._consumer.end_offsets, [tp])[tp]
        goes_on = max(first, first if agreed is None else agreed)
        partition = Log(self._topic, tp.partition, first, end)
        if not self._settings.bridge.accept_gap:
            raise OffsetGap(describe_truncation(partition, position, goes_on))
        start = StartOffset(goes_on, reason="truncated")
        self._report(partition, position, start)
        return start

    def _report(self, partition: Log, expected: int, start: StartOffset) -> None:
        if start.reason is None:
            return
        write = log.error if start.skipped or start.reason == "truncated" else log.warning
        write(
            "offset_jump",
            topic=partition.topic,
            partition=partition.partition,
            reason=start.reason,
            expected_offset=expected,
            available_from=partition.first,
            goes_on_from=start.offset,
            records_gone_undecided=start.skipped,
        )
        if start.skipped:
            self._on_skipped(partition.partition, start.reason, start.skipped)

    def _read_committed(self, tp: TopicPartition) -> CommittedOffset | None:
        found = self._ask(lambda timeout_ms: self._consumer.committed(tp, True, timeout_ms))
        if found is None:
            return None
        note = found.metadata or ""
        topic_id = note.removeprefix(TOPIC_ID) if note.startswith(TOPIC_ID) else ""
        epoch = found.leader_epoch if found.leader_epoch is not None else -1
        return CommittedOffset(found.offset, epoch, topic_id)

    def _list(self, question: Any, tps: Sequence[TopicPartition]) -> Any:
        return self._ask(lambda timeout_ms: kafka_internals.list_offsets(question, list(tps), timeout_ms))

    def _ask(self, question: Callable[[float], Any]) -> Any:
        try:
            return question(self._settings.kafka.request_timeout_s * 1000)
        except kafka_errors.KafkaError as error:
            raise BrokerUnavailable(
                f"Asking for the offsets of {self._topic}: {type(error).__name__}"
            ) from error
