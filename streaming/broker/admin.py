# ruff: noqa: ANN401  # kafka-python is untyped
"""Looks after topics and membership: created when missing, checked before anything is consumed."""

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, MemberToRemove, NewTopic

from streaming.broker.connection import client_config, translated, until_reached
from streaming.errors import BrokerRefused, BrokerUnavailable
from streaming.ports import Guard, Membership
from streaming.settings.load import Settings
from streaming.settings.sections import KafkaSettings, TopicSettings

Answer = TypeVar("Answer")

# What Kafka allows when nobody says otherwise.
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588


@dataclass(frozen=True)
class Topic:
    """A topic as it is on the broker; `rights` tells what this user may do, nothing where it is not told."""

    name: str
    partitions: int
    rights: frozenset[str] = field(default=frozenset(), compare=False)

    def require(self, right: Literal["READ", "WRITE"]) -> None:
        """Raise `BrokerRefused` where the broker says that this user lacks a right."""
        if self.rights and right not in self.rights:
            raise BrokerRefused(
                f"The broker does not let this user {right.lower()} topic {self.name}: grant {right} on it."
            )


class Admin:
    """A connection for questions and orders about topics and groups.

    Parameters
    ----------
    settings : KafkaSettings

    Raises
    ------
    BrokerUnavailable, BrokerRefused
        If there is no way to the broker.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        config = client_config(settings, "streaming-admin")
        self._servers = settings.bootstrap_servers
        self._client: Any = until_reached(
            lambda: KafkaAdminClient(**config | {"bootstrap_timeout_ms": 2000}),
            settings.connect_timeout_s,
            settings.bootstrap_servers,
        )

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection."""
        with contextlib.suppress(kafka_errors.KafkaError):
            self._client.close()

    def find(self, name: str) -> Topic | None:
        """Return a topic, or None when there is none.

        Raises
        ------
        BrokerRefused
            When this user may not see it.
        """
        try:
            found = self._client.describe_topics([name])
        except kafka_errors.KafkaError as error:
            raise translated(error, f"Looking for topic {name}") from error
        for topic in found:
            if topic.get("name") == name and topic.get("partitions"):
                rights = frozenset(topic.get("authorized_operations") or ())
                return Topic(name, len(topic["partitions"]), rights)
            if topic.get("error_code") == kafka_errors.TopicAuthorizationFailedError.errno:
                raise BrokerRefused(
                    f"The broker does not let this user see topic {name}: grant DESCRIBE on it."
                )
        return None

    def create(self, name: str, partitions: int, settings: TopicSettings) -> Topic:
        """Create a topic, unless somebody else just did, and wait until it can be used."""
        limit = {"max.message.bytes": str(settings.max_message_bytes)} if name != settings.input else {}
        new = NewTopic(name, partitions, settings.replication_factor, topic_configs=limit)
        try:
            with contextlib.suppress(kafka_errors.TopicAlreadyExistsError):
                self._client.create_topics([new], timeout_ms=10_000)
            self._client.wait_for_topics([name], timeout_ms=20_000)
        except kafka_errors.KafkaError as error:
            message = (
                f"Topic {name} is missing and cannot be created ({type(error).__name__}): create it by hand."
            )
            raise BrokerRefused(message) from error
        return self.find(name) or Topic(name, partitions)

    def max_message_bytes(self, name: str) -> int:
        """Return the largest record that a topic takes, bytes; Kafka's default when the broker is silent."""
        resource = ConfigResource(ConfigResourceType.TOPIC, name, configs={"max.message.bytes": None})
        try:
            found = self._client.describe_configs([resource], config_filter="all")
            return int(_value(found, "max.message.bytes"))
        except (kafka_errors.KafkaError, KeyError, ValueError, TypeError):
            return DEFAULT_MAX_MESSAGE_BYTES

    def holder(self, group: str, instance_id: str) -> str | None:
        """Return the member id under which a group knows an instance id, or None.

        Raises
        ------
        BrokerUnavailable
            When the broker asked is not the group's coordinator, or does not tell for another reason.
        """
        for member in self._described(group).get("members", []):
            if member.get("group_instance_id") == instance_id:
                return str(member["member_id"])
        return None

    def assigned(self, group: str, topic: str) -> frozenset[int] | None:
        """Return the partitions of a topic that the members of a group read; None while it rebalances.

        Raises
        ------
        BrokerUnavailable
            As `holder`.
        """
        found = self._described(group)
        if found.get("group_state") != "Stable":
            return None
        return frozenset(
            partition
            for member in found["members"]
            for place in member["member_assignment"]["assigned_partitions"]
            if place["topic"] == topic
            for partition in place["partitions"]
        )

    def _described(self, group: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._client.describe_groups([group])[group]
        if found.get("error"):
            # A client that is kept open asks where the coordinator was: this must not pass for "nobody".
            raise BrokerUnavailable(f"Group {group} is not described: {found['error']}")
        return found

    def remove(self, group: str, instance_id: str, member_id: str) -> None:
        """Take a static member out of its group; ``close()`` of its consumer does not.

        The broker refuses when another member holds the instance id by now.
        """
        member = MemberToRemove(member_id=member_id, group_instance_id=instance_id)
        self._client.remove_group_members(group, [member])


def _value(found: Any, key: str) -> Any:
    if isinstance(found, dict):
        if key in found:
            entry = found[key]
            return entry["value"] if isinstance(entry, dict) else entry
        for part in found.values():
            with contextlib.suppress(KeyError):
                return _value(part, key)
    raise KeyError(key)


@dataclass(frozen=True)
class Topics:
    """The three topics, and what fits into the two outputs."""

    input: Topic
    output: Topic
    dead_letter: Topic
    max_decision_bytes: int
    max_dead_letter_bytes: int


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


def _ensure(admin: Admin, name: str, partitions: int, settings: TopicSettings) -> Topic:
    found = admin.find(name)
    if found is not None:
        return found
    if not settings.create_missing:
        raise BrokerRefused(f"Topic {name} is missing: create it, or set topics.create_missing.")
    return admin.create(name, partitions, settings)


# What a broker that is down, or not the coordinator any more, brings about.
SILENT = (
    BrokerUnavailable,
    BrokerRefused,
    kafka_errors.KafkaError,
    KeyError,
    ValueError,
    OSError,
    RuntimeError,
)


class GroupGuard(Guard):
    """Asks the group's coordinator who holds our instance id.

    A fenced static member's heartbeat only logs the error and stops: without this look, a bridge
    whose id was taken would go on fetching for nobody.
    """

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._settings = settings
        self._partitions = partitions  # of the input topic
        self._lock = threading.Lock()
        self._kept: Admin | None = None

    def is_taken(self, membership: Membership) -> bool:
        """See `Guard.is_taken`."""
        bridge = self._settings.bridge
        holder = self._asked(lambda admin: admin.holder(bridge.group, bridge.instance_id))
        return holder is not None and holder != getattr(membership, "member_id", None)

    def has_unread(self) -> bool:
        """See `Guard.has_unread`."""
        group, topic = self._settings.bridge.group, self._settings.topics.input
        assigned = self._asked(lambda admin: admin.assigned(group, topic))
        return assigned is not None and not assigned.issuperset(range(self._partitions))

    def _asked(self, question: Callable[[Admin], Answer | None]) -> Answer | None:
        with self._lock:
            try:
                return question(self._connected())
            except SILENT:
                self._disconnect()
                return None

    def leave(self, member_id: str) -> None:
        """See `Guard.leave`."""
        if not member_id:
            return
        bridge = self._settings.bridge
        # A client of its own: the one that is kept may be waiting for an answer.
        with contextlib.suppress(*SILENT), self._admin() as admin:
            admin.remove(bridge.group, bridge.instance_id, member_id)

    def close(self) -> None:
        """See `Guard.close`."""
        with self._lock:
            self._disconnect()

    def _connected(self) -> Admin:
        # Connecting anew for each look would cost the bridge's other threads tens of milliseconds.
        if self._kept is None:
            self._kept = self._admin()
        return self._kept

    def _disconnect(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _admin(self) -> Admin:
        return Admin(self._settings.kafka.model_copy(update={"connect_timeout_s": 1.0}))
