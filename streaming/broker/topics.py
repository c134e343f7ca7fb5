"""Finds or creates the topics before anything is consumed, and reads their limits."""

from dataclasses import dataclass

from streaming.broker.admin import Admin, Topic
from streaming.errors import BrokerRefused
from streaming.settings.load import Settings
from streaming.settings.sections import TopicSettings


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
        return Topics(
            source,
            output,
            dead_letter,
            admin.max_message_bytes(names.output),
            admin.max_message_bytes(names.dead_letter),
        )


def prepare_input(settings: Settings) -> Topic:
    """Find the input topic, or create it: whoever only produces needs no right to the others.

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
