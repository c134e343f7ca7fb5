"""Finds the topics that the monitor joins, and makes sure that they can be joined."""

from dataclasses import dataclass

from streaming.broker.admin import Admin, Topic
from streaming.errors import BrokerRefused
from streaming.settings.load import Settings


@dataclass(frozen=True)
class MonitoredTopics:
    """The topics' names by what the monitor takes them for, and their number of partitions."""

    names: dict[str, str]
    partitions: int


def prepare_monitored_topics(settings: Settings) -> MonitoredTopics:
    """Find the topics, create those that are missing, and check that they are co-partitioned.

    A label has the key of its transaction, so it lies in the partition of the same number as long as both
    topics have equally many: then several monitors can share the partitions.

    Raises
    ------
    BrokerUnavailable, BrokerRefused
        With one sentence on what to do.
    """
    names = settings.topics
    wanted = {
        "transactions": names.input,
        "decisions": names.output,
        "shadow": names.shadow_decisions,
        "labels": names.labels,
    }
    with Admin(settings.kafka) as admin:
        source = _found(admin, names.input, settings.topics.partitions, settings)
        for name in wanted.values():
            topic = _found(admin, name, source.partitions, settings)
            topic.require("READ")
            if topic.partitions != source.partitions:
                raise BrokerRefused(
                    f"Topic {name} has {topic.partitions} partitions and {names.input} has "
                    f"{source.partitions}: the monitor joins them partition by partition. Make them equal."
                )
    return MonitoredTopics(wanted, source.partitions)


def _found(admin: Admin, name: str, partitions: int, settings: Settings) -> Topic:
    found = admin.find(name)
    if found is not None:
        return found
    if not settings.topics.create_missing:
        raise BrokerRefused(f"Topic {name} is missing: create it, or set topics.create_missing.")
    return admin.create(name, partitions, settings.topics)
