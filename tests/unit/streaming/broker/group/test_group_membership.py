"""Who holds the instance id: the look that is taken every few seconds, and the end of the membership."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from streaming.bridge.group_monitor import GroupMonitor
from streaming.bridge_state import BridgeState
from streaming.broker import admin
from streaming.broker.group.group_membership import KafkaGroupMembership
from streaming.ports import GroupMetadata
from streaming.settings.load import Settings
from tests.e2e.faults import wait_until
from tests.fakes import FakeBroker, FakeGroupMembership, FakeSource

OURS = GroupMetadata(ConsumerGroupMetadata(group_id="fraud-bridge", generation_id=3, member_id="ours"))


class Coordinator:
    """Stands in for the admin client; answers what it is told to."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.opened = 0
        self.closed = 0
        self.removed: list[Any] = []
        self.partitions = 4

    def __call__(self, **_: Any) -> "Coordinator":
        self.opened += 1
        return self

    def describe_groups(self, groups: list[str]) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        members = [{"group_instance_id": "bridge-0", "member_id": answer}] if answer else []
        return {groups[0]: {"error": None, "members": members}}

    def describe_topics(self, topics: list[str]) -> list[dict[str, Any]]:
        return [{"name": topics[0], "partitions": [{}] * self.partitions}]

    def list_group_offsets(self, groups: list[str]) -> dict[str, Any]:
        return {groups[0]: {TopicPartition("transactions", 2): OffsetAndMetadata(90, "", -1)}}

    def list_partition_offsets(self, specs: dict[Any, Any], timeout_ms: float) -> dict[Any, Any]:
        ends = {OffsetSpec.EARLIEST: 20, OffsetSpec.LATEST: 100}
        return {place: SimpleNamespace(offset=ends[spec]) for place, spec in specs.items()}

    def remove_group_members(self, group: str, members: list[Any]) -> None:
        self.removed += members

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch) -> Coordinator:
    coordinator = Coordinator()
    monkeypatch.setattr(admin, "KafkaAdminClient", coordinator)
    return coordinator


def test_looks_share_a_connection_until_one_fails(coordinator: Coordinator) -> None:
    membership = KafkaGroupMembership(Settings())
    coordinator.answers = ["ours", "theirs", None, kafka_errors.NodeNotReadyError(), "theirs"]
    assert [membership.is_taken(OURS) for _ in range(3)] == [False, True, False]
    assert (coordinator.opened, coordinator.closed) == (1, 0)
    assert not membership.is_taken(OURS)
    assert membership.is_taken(OURS)
    assert (coordinator.opened, coordinator.closed) == (2, 1)
    membership.close()
    membership.close()
    assert coordinator.closed == 2


def test_a_broker_that_coordinates_no_more_is_not_asked_again(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership = KafkaGroupMembership(Settings())
    refused = {"fraud-bridge": {"error": "NotCoordinatorError", "members": []}}
    with monkeypatch.context() as patch:
        patch.setattr(coordinator, "describe_groups", lambda groups: refused)
        assert not membership.is_taken(OURS)
    coordinator.answers = ["theirs"]
    assert membership.is_taken(OURS)
    assert coordinator.opened == 2


def test_a_bridge_leaves_as_the_member_that_it_was(coordinator: Coordinator) -> None:
    membership = KafkaGroupMembership(Settings())
    membership.leave("ours")
    membership.leave("")  # never joined: nothing of ours is there to be removed
    (removed,) = coordinator.removed
    assert (removed.group_instance_id, removed.member_id) == ("bridge-0", "ours")


def test_the_look_outlives_what_nobody_foresaw_and_is_closed_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, membership = FakeSource(FakeBroker()), FakeGroupMembership()
    asked = threading.Event()

    def stumble(membership: GroupMetadata) -> bool:
        if asked.is_set():
            return True
        asked.set()
        raise TypeError("nobody foresaw this")

    monkeypatch.setattr(membership, "is_taken", stumble)
    state = BridgeState()
    monitor = GroupMonitor(source, membership, state, 0.01)
    monitor.start()
    wait_until(lambda: state.is_instance_id_taken, 5, "the look ended", 0.01)
    wait_until(lambda: membership.is_closed, 5, "the connection stays open", 0.01)
    monitor.close()


def described(state: str, *partitions: int) -> dict[str, Any]:
    read = [{"topic": "transactions", "partitions": list(partitions)}]
    members = [{"member_assignment": {"assigned_partitions": part}} for part in (read, [])]
    return {"fraud-bridge": {"error": None, "group_state": state, "members": members}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (described("Stable", 0, 1), {2, 3}),
        (described("Stable", 0, 1, 2, 3), set()),
        (described("PreparingRebalance", 0, 1), set()),
        ({"fraud-bridge": {"error": "NotCoordinatorError", "members": []}}, set()),
    ],
)
def test_a_settled_group_that_leaves_a_partition_to_nobody_is_seen(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], expected: set[int]
) -> None:
    monkeypatch.setattr(coordinator, "describe_groups", lambda groups: answer)
    assert KafkaGroupMembership(Settings()).unassigned_partitions() == expected


def test_partitions_are_asked_for_when_the_same_group_leaves_them_twice() -> None:
    source, membership = FakeSource(FakeBroker()), FakeGroupMembership()
    monitor = GroupMonitor(source, membership, BridgeState(), 60)
    membership.is_unassigned = True
    assert not monitor._are_partitions_unassigned()  # perhaps between the two rounds of a rebalance
    source._generation += 1
    assert not monitor._are_partitions_unassigned()
    assert monitor._are_partitions_unassigned()
    assert monitor._state.unassigned_lags == {7: 30}
    source.is_joined = False
    assert not monitor._are_partitions_unassigned()
    source.is_joined, membership.is_unassigned = True, False
    assert not monitor._are_partitions_unassigned()
    assert not monitor._state.unassigned_lags


def test_partitions_that_are_added_have_no_reader_at_first(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "describe_groups", lambda groups: described("Stable", 0, 1, 2, 3))
    membership = KafkaGroupMembership(Settings())
    assert membership.unassigned_partitions() == set()
    coordinator.partitions = 8
    assert membership.unassigned_partitions() == {4, 5, 6, 7}


def test_what_nobody_reads_is_told_by_one_member_of_the_group(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [{"group_instance_id": name} for name in ("bridge-1", "bridge-0")]
    monkeypatch.setattr(
        coordinator, "describe_groups", lambda groups: {groups[0]: {"error": None, "members": members}}
    )
    other = Settings(bridge={"instance_id": "bridge-1"})
    # A commit counts, and without one everything that is there.
    assert KafkaGroupMembership(Settings()).undecided({2, 3}) == {2: 10, 3: 80}
    assert KafkaGroupMembership(other).undecided({2, 3}) == {}
