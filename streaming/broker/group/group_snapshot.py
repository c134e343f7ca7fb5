"""The membership and the topic under which records were fetched: what a commit has to agree with."""

from dataclasses import dataclass, replace

from kafka.structs import ConsumerGroupMetadata

from streaming.ports import GroupMetadata


@dataclass(frozen=True)
class GroupSnapshot:
    """What lies behind `GroupMetadata`.

    Attributes
    ----------
    metadata : ConsumerGroupMetadata
        Group, member id and generation; the broker refuses a commit under one that is out of date.
    topic_id : str
        Id of the input topic, which changes when the topic is made again; empty where unknown.
    """

    metadata: ConsumerGroupMetadata
    topic_id: str = ""

    @property
    def member_id(self) -> str:
        """The member id in the group."""
        return str(self.metadata.member_id)

    def as_group_metadata(self) -> GroupMetadata:
        """Return it as the bridge passes it on; the momentary state does not count."""
        return GroupMetadata(replace(self, metadata=self.metadata._replace(state=None)))


def group_metadata_without_member(group: str) -> GroupMetadata:
    """Return the metadata to commit the offsets of a group without members.

    Only the transactional id of the sink fences such commits.
    """
    return GroupSnapshot(ConsumerGroupMetadata(group_id=group)).as_group_metadata()
