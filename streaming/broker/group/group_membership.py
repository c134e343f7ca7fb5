"""Asks the group's coordinator about its members."""

import contextlib
import threading
from collections.abc import Callable, Collection
from typing import TypeVar

from kafka import errors as kafka_errors
from typing_extensions import override

from streaming.broker.admin import Admin
from streaming.errors import BrokerRefused, BrokerUnavailable
from streaming.ports import GroupMembership, GroupMetadata
from streaming.settings.load import Settings

Answer = TypeVar("Answer")

# What a broker that is down, or not the coordinator any more, brings about.
NO_ANSWER = (
    BrokerUnavailable,
    BrokerRefused,
    kafka_errors.KafkaError,
    KeyError,
    ValueError,
    OSError,
    RuntimeError,
)


def skip_group(group: str) -> str:
    """Return the group whose committed offsets are the records that a person has ordered to skip."""
    return f"{group}.skip"


class KafkaGroupMembership(GroupMembership):
    """Asks the group's coordinator who holds our instance id.

    A fenced static member's heartbeat only logs the error and stops: without this look, a bridge
    whose id was taken would go on fetching records that it can no longer commit.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._kept: Admin | None = None

    @override
    def is_taken(self, membership: GroupMetadata) -> bool:
        bridge = self._settings.bridge
        holder = self._ask(lambda admin: admin.holder(bridge.group, bridge.instance_id))
        return holder is not None and holder != getattr(membership, "member_id", None)

    @override
    def unassigned_partitions(self) -> frozenset[int]:
        group, topic = self._settings.bridge.group, self._settings.topics.input
        return self._ask(lambda admin: admin.unassigned(group, topic)) or frozenset()

    @override
    def undecided(self, partitions: Collection[int]) -> dict[int, int]:
        bridge, topic = self._settings.bridge, self._settings.topics.input

        def ask(admin: Admin) -> dict[int, int]:
            if admin.first_instance(bridge.group) != bridge.instance_id:
                return {}
            return admin.lags(bridge.group, topic, partitions)

        return self._ask(ask) or {}

    def _ask(self, question: Callable[[Admin], Answer | None]) -> Answer | None:
        with self._lock:
            try:
                # Connecting anew for each look would cost the bridge's other threads tens of milliseconds.
                self._kept = self._kept or self._admin()
                return question(self._kept)
            except NO_ANSWER:
                self._disconnect()
                return None

    @override
    def read_skip_orders(self) -> dict[tuple[int, int], str]:
        bridge, topic = self._settings.bridge, self._settings.topics.input
        return self._ask(lambda admin: admin.read_notes(skip_group(bridge.group), topic)) or {}

    @override
    def leave(self, member_id: str) -> None:
        if not member_id:
            return
        bridge = self._settings.bridge
        # A client of its own: the one that is kept may be waiting for an answer.
        with contextlib.suppress(*NO_ANSWER), self._admin() as admin:
            admin.remove(bridge.group, bridge.instance_id, member_id)

    @override
    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _admin(self) -> Admin:
        return Admin(self._settings.kafka.model_copy(update={"connect_timeout_s": 1.0}))
