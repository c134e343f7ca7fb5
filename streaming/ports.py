"""What the bridge needs from outside: a scoring service, a source of records, a sink with transactions."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import NewType

from streaming.records import InputRecord, NextOffset, OutputRecord, ServiceDecision

# A snapshot of the consumer's membership in its group (member id and generation), opaque here; the broker
# refuses a commit under one that is out of date.
GroupMetadata = NewType("GroupMetadata", object)


class Classifier(ABC):
    """Decides transactions."""

    @abstractmethod
    def classify(
        self, transactions: Sequence[bytes], identities: Sequence[str | None]
    ) -> list[ServiceDecision]:
        """Return one decision for each transaction, in their order.

        Parameters
        ----------
        transactions : sequence of bytes
            JSON objects, checked by `precheck`.
        identities : sequence of str or None
            Their ``transaction_id``, None where there is none.

        Raises
        ------
        ServiceUnavailable
            Try again later.
        ServiceRefused
            Do not try again.
        BatchRejected, BatchTooLarge
            Try again with other items, or fewer.
        """

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether the service says that it is ready; never raises."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""


class RebalanceListener(ABC):
    """Called about rebalances while the polling thread waits in `Source.poll`."""

    @abstractmethod
    def on_assigned(self, partitions: Sequence[int]) -> None:
        """Partitions have been added."""

    @abstractmethod
    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Partitions move to another member when this returns: finish or drop what is in flight."""

    @abstractmethod
    def on_lost(self, partitions: Sequence[int]) -> None:
        """Partitions belong to other members already: drop what is in flight."""


class Source(ABC):
    """The input topic, as a member of a consumer group. One thread uses it."""

    @abstractmethod
    def start(self, listener: RebalanceListener) -> None:
        """Subscribe; partitions arrive during later polls."""

    @abstractmethod
    def poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        """Return records that have not been returned since the start or the last rewind.

        Raises
        ------
        NotInGroup
            If the group had evicted this consumer: drop what is in flight and call `rewind`.
        RecordsHeld
            If a batch cannot be read: `hold` its partition. The next call goes on with the others.
        """

    @abstractmethod
    def pause(self) -> None:
        """Let `poll` return nothing, but keep the membership alive."""

    @abstractmethod
    def resume(self) -> None:
        """Undo `pause`."""

    @abstractmethod
    def hold(self, partition: int) -> None:
        """Fetch nothing of a partition until `release`; `resume` does not undo it."""

    @abstractmethod
    def release(self, partition: int) -> None:
        """Undo `hold`."""

    @abstractmethod
    def rewind(self) -> None:
        """Go back to what the group has committed.

        Raises
        ------
        BrokerUnavailable
            If the broker does not tell in time.
        """

    @abstractmethod
    def rejoin(self) -> None:
        """Let the next poll ask the group to assign its partitions again; assigned ones go on meanwhile."""

    @property
    @abstractmethod
    def member_id(self) -> str:
        """The id under which the group last knew this consumer; empty before it has joined."""

    @property
    @abstractmethod
    def last_answer(self) -> float:
        """When the coordinator and every assigned partition's leader last answered, ``time.monotonic()``."""

    @property
    @abstractmethod
    def has_joined(self) -> bool:
        """Whether this consumer is a member and has got its assignment, which may be empty."""

    @abstractmethod
    def group_metadata(self) -> GroupMetadata:
        """Return the group metadata under which records were fetched, to commit with; any thread may ask.

        Raises
        ------
        NotInGroup
            If the group does not count this consumer as that member now.
        """

    @abstractmethod
    def lags(self) -> dict[int, int]:
        """Return partition to the number of records not fetched yet."""

    @abstractmethod
    def close(self) -> None:
        """Leave the group, unless the membership is static, and close the connections."""


class Sink(ABC):
    """The output topics and the group's offsets, in transactions. One thread uses it at a time."""

    @abstractmethod
    def start(self) -> None:
        """Start a producer under the transactional id; the transaction that was open under it is aborted.

        Raises
        ------
        BrokerUnavailable
            If that takes too long.
        """

    @abstractmethod
    def publish(
        self, outputs: Sequence[OutputRecord], offsets: Mapping[int, NextOffset], metadata: GroupMetadata
    ) -> None:
        """Publish records and offsets, all or none.

        Raises
        ------
        PublishFailed
            If it is not sure that all arrived; call `start` and `Source.rewind`.
        RecordsHeld
            If partitions of the outputs have no leader, and nothing was published; do the same.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connections; the next start or the broker aborts an open transaction."""


class GroupMembership(ABC):
    """Asks the group's coordinator who holds our instance id and whether every partition has a reader."""

    @abstractmethod
    def is_taken(self, metadata: GroupMetadata) -> bool:
        """Return whether another member holds our instance id; False when the broker does not answer."""

    @abstractmethod
    def unassigned_partitions(self) -> frozenset[int]:
        """Return the partitions to which a stable group has no reader; none without an answer."""

    @abstractmethod
    def undecided(self, partitions: Collection[int]) -> dict[int, int]:
        """Return the records of partitions beyond what the group has committed; none without an answer.

        Only one member of the group gets an answer, so that they count once.
        """

    @abstractmethod
    def read_skip_orders(self) -> dict[tuple[int, int], str]:
        """Return the records that a person has ordered to skip: partition and offset, and why."""

    @abstractmethod
    def leave(self, member_id: str) -> None:
        """Remove the member from the group, so that its partitions move at once; never raises.

        A successor under the same instance id has another member id, and stays.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection; the next question opens it again."""


class TopicsSource(ABC):
    """Partitions of several topics, read without a group. One thread uses it and keeps the offsets."""

    @abstractmethod
    def bounds(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Return the first offset of each topic's partition and the one after its last.

        Raises
        ------
        BrokerUnavailable
            If the broker does not tell in time.
        """

    @abstractmethod
    def topic_ids(self) -> dict[str, str]:
        """Return the ids that the topics have now; a topic made again has another one.

        Empty where the broker tells none.

        Raises
        ------
        BrokerUnavailable
            If the broker does not tell in time, or one of the topics does not exist.
        """

    @abstractmethod
    def seek(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Go on at these offsets."""

    @abstractmethod
    def poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        """Return the next records, each partition in order; none while the broker does not answer.

        Raises
        ------
        OffsetGone
            If the broker has no such offset: `bounds` tells which there are, `topic_ids` whether the topic is
            another one.
        BrokerError
            If the broker refuses.
        """

    @abstractmethod
    def lags(self) -> dict[tuple[str, int], int]:
        """Return the records not read yet."""

    @property
    @abstractmethod
    def answered_at(self) -> float:
        """When the broker last answered, on the monotonic clock."""
