"""What redrive and backfill share: existing topics, names of their groups, a sink for one topic."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager

from streaming.broker.admin import Admin, Topic
from streaming.broker.transactional_producer import TransactionalProducer
from streaming.errors import DataError
from streaming.settings.load import Settings


def find_topic(settings: Settings, name: str) -> Topic:
    """Return a topic that must exist.

    Raises
    ------
    DataError
        If it does not.
    """
    with Admin(settings.kafka) as admin:
        found = admin.find(name)
    if found is None:
        raise DataError(f"Topic {name} does not exist.")
    return found


def group_name(settings: Settings, command: str, *parts: str) -> str:
    """Return the name of the consumer group that holds a command's progress."""
    text = ".".join((settings.bridge.group, command, *parts))
    name = re.sub(r"[^a-zA-Z0-9._-]", "_", text)
    # Kafka takes 249 characters; two long names must not become one.
    return name if len(name) <= 249 else f"{name[:200]}.{hashlib.sha256(text.encode()).hexdigest()[:40]}"


@contextmanager
def open_sink(
    settings: Settings, identity: str, source: str, kind: str, target: Topic
) -> Iterator[TransactionalProducer]:
    """Open a sink that writes one kind of record to one topic and commits offsets of `source`."""
    sink = TransactionalProducer(settings, identity, source, {kind: target})
    sink.start()
    try:
        yield sink
    finally:
        sink.close()
