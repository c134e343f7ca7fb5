"""What the bridge needs of a broker: a source of records and a sink with transactions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NewType

from streaming.records import InputRecord, OutputRecord

# A snapshot of the consumer's membership: opaque here, the broker fences stale ones by it.
Membership = NewType("Membership", object)


class Listener(ABC):
    """Told about rebalances, while the thread that polls waits in `Source.poll`."""

    @abstractmethod
    def on_assigned(self, partitions: Sequence[int]) -> None:
        """Partitions have been added."""

    @abstractmethod
    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Partitions go to another member when this returns: finish or drop what is in flight."""

    @abstractmethod
    def on_lost(self, partitions: Sequence[int]) -> None:
        """Partitions belong to others already: drop what is in flight."""


class Source(ABC):
    """The input topic, as a member of a consumer group. One thread uses it."""

    @abstractmethod
    def start(self, listener: Listener) -> None:
        """Subscribe; partitions arrive during later polls."""

    @abstractmethod
    def poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        """Return records that have not been returned since the start or the last rewind.

        Raises
        ------
        NotInGroup
            If the group had evicted this consumer: what is in flight counts no more, `rewind` is due.
        """

    @abstractmethod
    def pause(self) -> None:
        """Let `poll` return nothing, but keep the membership alive."""

    @abstractmethod
    def resume(self) -> None:
        """Undo `pause`."""

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
        """Let the next poll ask the group to share its partitions out again; those at hand go on."""

    @property
    @abstractmethod
    def member_id(self) -> str:
        """The id under which the group last knew this consumer; empty before it has joined."""

    @property
    @abstractmethod
    def has_joined(self) -> bool:
        """Whether the group counts this consumer in and has told it what it reads, which may be nothing."""

    @abstractmethod
    def membership(self) -> Membership:
        """Return the membership under which records were fetched, to commit with; any thread may ask.

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
        """Leave."""


class Sink(ABC):
    """The output topics and the group's offsets, in transactions. One thread uses it at a time."""

    @abstractmethod
    def start(self) -> None:
        """Begin anew under the transactional id: whatever was open under it is aborted.

        Raises
        ------
        BrokerUnavailable
            If that takes too long.
        """

    @abstractmethod
    def publish(
        self, outputs: Sequence[OutputRecord], offsets: Mapping[int, int], membership: Membership
    ) -> None:
        """Publish records and offsets, all or none.

        Raises
        ------
        PublishFailed
            If it is not sure that all arrived; `start` and `Source.rewind` are due.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up the connections; what is open is aborted by the next start or by the broker."""


class Guard(ABC):
    """Knows how the group stands: whether another process has our instance id, whether all is read."""

    @abstractmethod
    def is_taken(self, membership: Membership) -> bool:
        """Return whether another member holds our instance id; False when the broker does not tell."""

    @abstractmethod
    def has_unread(self) -> bool:
        """Return whether the group is settled and leaves a partition to nobody; False when it is not told."""

    @abstractmethod
    def leave(self, member_id: str) -> None:
        """Take the member out of the group for good, so that its partitions move at once; never raises.

        A successor under the same instance id has another member id, and stays.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up the connection; another look opens it again."""
