# ruff: noqa: ANN401  # kafka-python is untyped
"""Looks after topics and membership: created when missing, checked before anything is consumed."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import (
    ConfigResource,
    ConfigResourceType,
    MemberToRemove,
    NewTopic,
    OffsetSpec,
    TransactionState,
)
from kafka.structs import OffsetAndMetadata

from streaming.broker.connection import client_config, retry_until_reached, translate_error
from streaming.errors import BrokerRefused, BrokerUnavailable
from streaming.settings.sections import KafkaSettings, TopicSettings

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Topic:
    """A topic as it is on the broker.

    Attributes
    ----------
    name : str
    partitions : int
    rights : frozenset of str
        What this user may do; empty where the broker does not tell.
    copies : int
        Of the partition with the fewest; 0: unknown.
    """

    name: str
    partitions: int
    rights: frozenset[str] = field(default=frozenset(), compare=False)
    copies: int = field(default=0, compare=False)

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
        self._client: Any = retry_until_reached(
            lambda: KafkaAdminClient(**config | {"bootstrap_timeout_ms": 2000}),
            settings.connect_timeout_s,
            settings.bootstrap_servers,
            () if settings.security_protocol.endswith("SSL") else settings.servers,
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
            raise translate_error(error, f"Looking for topic {name}") from error
        for topic in found:
            if topic.get("name") == name and topic.get("partitions"):
                rights = frozenset(topic.get("authorized_operations") or ())
                copies = min(len(partition.get("replica_nodes", ())) for partition in topic["partitions"])
                return Topic(name, len(topic["partitions"]), rights, copies)
            if topic.get("error_code") == kafka_errors.TopicAuthorizationFailedError.errno:
                raise BrokerRefused(
                    f"The broker does not let this user see topic {name}: grant DESCRIBE on it."
                )
        return None

    def create(self, name: str, partitions: int, settings: TopicSettings) -> Topic:
        """Create a topic, unless somebody else just did, and wait until it can be used."""
        configs = _configs(name, settings)
        new = NewTopic(name, partitions, settings.replication_factor, topic_configs=configs)
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

    def max_message_bytes(self, name: str) -> int | None:
        """Return the largest record that a topic takes, bytes; None where this user may not ask."""
        resource = ConfigResource(ConfigResourceType.TOPIC, name, configs={"max.message.bytes": None})
        try:
            found = self._client.describe_configs([resource], config_filter="all")
            return int(_value(found, "max.message.bytes"))
        except (kafka_errors.KafkaError, KeyError, ValueError, TypeError):
            return None

    def topic_configs(self, name: str, keys: Sequence[str]) -> dict[str, str]:
        """Return what a topic is set to; a key is missing where this user may not ask."""
        resource = ConfigResource(ConfigResourceType.TOPIC, name, configs=dict.fromkeys(keys))
        try:
            found = self._client.describe_configs([resource], config_filter="all")
        except (kafka_errors.KafkaError, ValueError, TypeError):
            return {}
        values = {}
        for key in keys:
            with contextlib.suppress(KeyError):
                values[key] = str(_value(found, key))
        return values

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

    def unassigned(self, group: str, topic: str) -> frozenset[int]:
        """Return the partitions of a topic that no member of a group reads; none while it rebalances.

        Raises
        ------
        BrokerUnavailable
            As `holder`.
        """
        found = self._described(group)
        if found.get("group_state") != "Stable":
            return frozenset()
        assigned = {
            partition
            for member in found["members"]
            for assigned in member["member_assignment"]["assigned_partitions"]
            if assigned["topic"] == topic
            for partition in assigned["partitions"]
        }
        now = self.find(topic)  # partitions may have been added since the start
        return frozenset(range(now.partitions if now is not None else 0)) - assigned

    def first_instance(self, group: str) -> str | None:
        """Return the instance id that comes first among the members of a group.

        Raises
        ------
        BrokerUnavailable
            As `holder`.
        """
        members = self._described(group).get("members", [])
        return min((str(member.get("group_instance_id")) for member in members), default=None)

    def lags(self, group: str, topic: str, partitions: Collection[int]) -> dict[int, int]:
        """Return how many records lie beyond what a group has committed; without a commit, all count."""
        tps = [TopicPartition(topic, number) for number in sorted(partitions)]
        committed = self._client.list_group_offsets([group])[group]
        first, end = (
            self._client.list_partition_offsets(dict.fromkeys(tps, which), timeout_ms=2000)
            for which in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
        )
        lags = {}
        for tp in tps:
            known = committed[tp].offset if tp in committed else -1
            lags[tp.partition] = max(0, end[tp].offset - max(known, first[tp].offset))
        return lags

    def _described(self, group: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._client.describe_groups([group])[group]
        if found.get("error"):
            # A client that is kept open asks where the coordinator was; that does not mean "no member".
            raise BrokerUnavailable(f"Group {group} is not described: {found['error']}")
        return found

    def read_notes(self, group: str, topic: str) -> dict[tuple[int, int], str]:
        """Return the texts beside a group's committed offsets: partition and offset, and the text."""
        found = self._client.list_group_offsets([group])[group]
        return {
            (tp.partition, committed.offset): committed.metadata or ""
            for tp, committed in found.items()
            if tp.topic == topic and committed.offset >= 0
        }

    def transaction_is_decided(self, transactional_id: str) -> bool:
        """Return whether the last transaction of an id is being committed or aborted, past recall."""
        try:
            found = self._client.describe_transactions([transactional_id])
        except kafka_errors.KafkaError:
            return False  # unknown, or this user may not ask
        state = found[transactional_id].state
        return state in {TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT}

    def write_note(self, group: str, topic: str, partition: int, offset: int, text: str) -> None:
        """Commit an offset with a text beside it, for a group without members."""
        tp = TopicPartition(topic, partition)
        done = self._client.alter_group_offsets(group, {tp: OffsetAndMetadata(offset, text, -1)})
        for error in done.values():
            if error is not kafka_errors.NoError:
                raise translate_error(error(), f"Noting offset {offset} for group {group}")

    def remove(self, group: str, instance_id: str, member_id: str) -> None:
        """Take a static member out of its group; ``close()`` of its consumer does not.

        The broker refuses when another member holds the instance id by now.
        """
        member = MemberToRemove(member_id=member_id, group_instance_id=instance_id)
        self._client.remove_group_members(group, [member])


def _configs(name: str, settings: TopicSettings) -> dict[str, str]:
    """Return what a topic is created with, where it is not the broker's default."""
    # Said even where it is the default: a record without a key cannot be written to a compacted topic.
    configs = {"cleanup.policy": "delete"}
    if name != settings.input:
        configs["max.message.bytes"] = str(settings.max_message_bytes)
    if settings.min_insync_replicas is not None:
        configs["min.insync.replicas"] = str(settings.min_insync_replicas)
    if (hours := settings.retention_hours(name)) is not None:
        configs["retention.ms"] = str(hours * 3_600_000)
    return configs


def _value(found: Any, key: str) -> Any:
    if isinstance(found, dict):
        if key in found:
            entry = found[key]
            return entry["value"] if isinstance(entry, dict) else entry
        for part in found.values():
            with contextlib.suppress(KeyError):
                return _value(part, key)
    raise KeyError(key)
