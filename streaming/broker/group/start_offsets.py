"""Where to begin in a partition, and what to say when records are missing: no gap passes in silence."""

from dataclasses import dataclass
from typing import Literal

from streaming.errors import OffsetGap

Reason = Literal["removed", "truncated", "recreated", "expired"]

# Prefix of the text that is stored beside each committed offset.
TOPIC_ID = "topic-id="


@dataclass(frozen=True)
class CommittedOffset:
    """What a group has committed for one partition.

    Attributes
    ----------
    offset : int
        The next record to decide.
    leader_epoch : int
        Of the last record that was decided; -1 where unknown.
    topic_id : str
        Id of the topic when it was committed; empty where unknown.
    """

    offset: int
    leader_epoch: int = -1
    topic_id: str = ""


@dataclass(frozen=True)
class Log:
    """A partition as it is now.

    Attributes
    ----------
    topic, partition
        Its name.
    first, end : int
        First offset that is there, and the one after the last.
    topic_id : str
        Empty where the broker knows none.
    """

    topic: str
    partition: int
    first: int
    end: int
    topic_id: str = ""


@dataclass(frozen=True)
class StartOffset:
    """Where to begin.

    Attributes
    ----------
    offset : int
    leader_epoch : int
        To check the log against; -1: no check.
    skipped : int
        Records that are gone undecided, at most (transaction markers count too).
    reason : str or None
        Why it is not the committed offset: ``removed`` by retention or deletion, ``truncated`` log,
        ``recreated`` topic, ``expired`` offsets of the group; None for the committed one and for a new group.
    """

    offset: int
    leader_epoch: int = -1
    skipped: int = 0
    reason: Reason | None = None


def choose_start(
    log: Log, committed: CommittedOffset | None, decided_until: int | None, *, accept_gap: bool
) -> StartOffset:
    """Choose where a group begins in a partition.

    Parameters
    ----------
    log : Log
    committed : CommittedOffset or None
        None when the group has committed nothing, or its offsets have expired.
    decided_until : int or None
        The offset after the last one in the output topics; asked only without a committed offset.
    accept_gap : bool
        Whether to go on where the log is shorter than what was committed.

    Raises
    ------
    OffsetGap
        If the log is shorter than what was committed, and that is not accepted.

    Examples
    --------
    >>> choose_start(Log("t", 0, 7, 20), CommittedOffset(5), None, accept_gap=False)
    StartOffset(offset=7, leader_epoch=-1, skipped=2, reason='removed')
    """
    if committed is None:
        return _start_without_commit(log, decided_until)
    if committed.topic_id and log.topic_id and committed.topic_id != log.topic_id:
        return StartOffset(log.first, reason="recreated")
    if committed.offset < log.first:
        return StartOffset(log.first, skipped=log.first - committed.offset, reason="removed")
    if committed.offset <= log.end:
        return StartOffset(committed.offset, committed.leader_epoch)
    if not accept_gap:
        raise OffsetGap(describe_truncation(log, committed.offset, log.end))
    if committed.leader_epoch >= 0:
        # The log's end is not where what was decided ends: records may have been written since the cut. The
        # leader tells that offset when it checks the epoch.
        return StartOffset(committed.offset, committed.leader_epoch)
    return StartOffset(log.end, reason="truncated")


def _start_without_commit(log: Log, decided_until: int | None) -> StartOffset:
    if decided_until is None:
        return StartOffset(log.first)
    if decided_until > log.end:
        # Kafka drops a group's offsets together with the topic.
        return StartOffset(log.first, reason="recreated")
    if decided_until < log.first:
        return StartOffset(log.first, skipped=log.first - decided_until, reason="removed")
    return StartOffset(decided_until, reason="expired")


def describe_truncation(log: Log, committed: int, end: int) -> str:
    """Return the sentence for a log that lost records which had been committed."""
    return (
        f"{log.topic}, partition {log.partition} lost records: the group has committed offset {committed}, "
        f"but the records that it knows end at {end} (the log has {log.first} to {log.end}); an unclean "
        "leader election may be the cause. What was below the committed offset has been decided; what was "
        f"written in its place has not. To go on from offset {end}: `python -m streaming bridge "
        "--accept-gap`, or bridge.accept_gap: true."
    )
