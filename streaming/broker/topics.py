"""Finds or creates the topics before anything is consumed, and reads their limits."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from streaming.broker.admin import Admin, Topic
from streaming.errors import BrokerRefused
from streaming.settings.load import Settings
from streaming.settings.sections import TopicSettings

log = structlog.get_logger()

POLICY, COPIES, RETENTION = "cleanup.policy", "min.insync.replicas", "retention.ms"


@dataclass(frozen=True)
class Topics:
    """The three topics, and the largest records of the two outputs, bytes; None: unknown."""

    input: Topic
    output: Topic
    dead_letter: Topic
    max_decision_bytes: int | None
    max_dead_letter_bytes: int | None


def prepare_topics(settings: Settings) -> Topics:
    """Find the topics, create those that are missing, and read their limits.

    Raises
    ------
    BrokerUnavailable, BrokerRefused
        With one sentence on what to do.
    """
    names = settings.topics
    with Admin(settings.kafka) as admin:
        source = _ensure(admin, names.input, names.partitions, names)
        output = _ensure(admin, names.output, source.partitions, names)
        dead_letter = _ensure(admin, names.dead_letter, source.partitions, names)
        # Told now, not by the first transaction.
        source.require("READ")
        for one in (output, dead_letter):
            one.require("WRITE")
            _check_output(admin, one.name, names)
        _check_input(admin, source.name, names)
        _warn_of_few_copies(admin, (source, output, dead_letter))
        return Topics(
            source,
            output,
            dead_letter,
            admin.max_message_bytes(names.output),
            admin.max_message_bytes(names.dead_letter),
        )


def prepare_input(settings: Settings) -> Topic:
    """Find the input topic, or create it; a program that only produces needs no right to the others.

    Raises
    ------
    BrokerUnavailable, BrokerRefused
        With one sentence on what to do.
    """
    names = settings.topics
    with Admin(settings.kafka) as admin:
        topic = _ensure(admin, names.input, names.partitions, names)
    topic.require("WRITE")
    return topic


def prepare_labels(settings: Settings) -> Topic:
    """Find the topics of labels, or create them beside the input topic.

    A label meets its transaction where both have the same partition: same key, as many partitions.

    Raises
    ------
    BrokerUnavailable, BrokerRefused
        With one sentence on what to do.
    """
    names = settings.topics
    with Admin(settings.kafka) as admin:
        source = admin.find(names.input)
        partitions = source.partitions if source is not None else names.partitions
        labels = _ensure(admin, names.labels, partitions, names)
        dead_letter = _ensure(admin, names.labels_dead_letter, labels.partitions, names)
    if source is not None and labels.partitions != source.partitions:
        raise BrokerRefused(
            f"Topic {names.labels} has {labels.partitions} partitions and {names.input} {source.partitions}: "
            "labels would miss their transactions. Create the one again with as many as the other."
        )
    for one in (labels, dead_letter):
        one.require("WRITE")
    return labels


def _ensure(admin: Admin, name: str, partitions: int, settings: TopicSettings) -> Topic:
    found = admin.find(name)
    if found is not None:
        return found
    if not settings.create_missing:
        raise BrokerRefused(f"Topic {name} is missing: create it, or set topics.create_missing.")
    return admin.create(name, partitions, settings)


def _check_output(admin: Admin, name: str, settings: TopicSettings) -> None:
    """Refuse a compacted output topic; say where it keeps records shorter or safer than the settings want.

    Raises
    ------
    BrokerRefused
        If the topic is compacted: the broker refuses a record without a key for ever, and of the decisions of
        one key it would keep the last.
    """
    found = admin.topic_configs(name, (POLICY, COPIES, RETENTION))
    if "compact" in found.get(POLICY, ""):
        raise BrokerRefused(
            f"Topic {name} is compacted ({POLICY}={found[POLICY]}), and a record may have no key, which a "
            f"compacted topic refuses for ever: set {POLICY}=delete on it, or name another topic."
        )
    _compare(name, found, settings)


def _check_input(admin: Admin, name: str, settings: TopicSettings) -> None:
    """Say where the input topic loses records that are not decided yet."""
    found = admin.topic_configs(name, (POLICY, COPIES, RETENTION))
    if "compact" in found.get(POLICY, ""):
        log.warning(
            "topic_compacted",
            topic=name,
            meaning="of the transactions of one key all but the last may be gone before they are decided",
        )
    _compare(name, found, settings)


def _warn_of_few_copies(admin: Admin, topics: Sequence[Topic]) -> None:
    """Say which topics lose records with one broker."""
    alone = [topic.name for topic in topics if topic.copies == 1]
    if alone:
        log.warning(
            "topics_have_one_copy",
            topics=alone,
            meaning="while a broker is down its partitions stand, and a broken disk loses their records",
            action="give them 3 copies and min.insync.replicas 2",
        )
    careless = [
        topic.name
        for topic in topics
        if topic.copies > 1 and admin.topic_configs(topic.name, (COPIES,)).get(COPIES) == "1"
    ]
    if careless:
        log.warning(
            "topics_are_content_with_one_copy",
            topics=careless,
            meaning="a record counts as written while one broker has it, and is gone with that one",
            action="set min.insync.replicas to 2 on them",
        )


def _compare(name: str, found: dict[str, str], settings: TopicSettings) -> None:
    wanted = settings.min_insync_replicas
    if wanted is not None and COPIES in found and int(found[COPIES]) < wanted:
        log.warning(
            "topic_has_fewer_copies", topic=name, setting=COPIES, found=int(found[COPIES]), wanted=wanted
        )
    hours = settings.retention_hours(name)
    if hours is None or RETENTION not in found:
        return
    kept_ms = int(found[RETENTION])
    if 0 <= kept_ms < hours * 3_600_000:  # -1: for ever
        log.warning(
            "topic_keeps_shorter",
            topic=name,
            setting=RETENTION,
            found_hours=round(kept_ms / 3_600_000, 2),
            wanted_hours=hours,
        )
