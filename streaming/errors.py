# ruff: noqa: N818  # they are named for what happened; the base class says that it is an error
"""Every error of this package, and what the bridge does about each.

::

    StreamingError                 ends the command, exit code 1
      SettingsError                ends the command, exit code 2
      DataError                    a file to replay that cannot be read
      StateError                   ends the monitor: its database fails
      BrokerError
        BrokerUnavailable          retried: the broker is down, or does not answer in time
        BrokerRefused              ends the command: credentials, authorisation, versions
        OffsetGone                 the monitor asks what there is, and goes on from there
        CorruptInput               ends the command (not the bridge): a batch cannot be read
        OffsetGap                  ends the bridge: committed records are gone from the log
        PublishFailed              retried: abort, new producer, back to the committed offsets
          MessageTooLarge          the same, and the limits of the topics are read again
          TopicsChanged            the same: a topic was made again with other partitions
        NotInGroup                 the same: the group does not count this bridge as a member now
        Fenced                     ends the bridge when another process has its instance id
      ServiceError
        ServiceUnavailable         retried for ever: down, slow, overloaded, 5xx
        ServiceRefused             ends the bridge: 401, 403, 404, a wrong address or key, a foreign 400
        BatchRejected              400: the named items are dead letters, the rest goes on
        BatchTooLarge              413: the batch is split
    RecordsHeld                    the partitions of these records are held, the others go on

Messages name topic, partition and offset, never a value of a transaction.
"""

from collections.abc import Sequence
from typing import NamedTuple

from streaming.records import HeldRecord


class StreamingError(Exception):
    """Base of all errors that a person should read as one sentence."""

    exit_code = 1


class SettingsError(StreamingError):
    """A setting, flag or variable is wrong; nothing has been consumed."""

    exit_code = 2


class DataError(StreamingError):
    """A data file is missing, unreadable or lacks a column."""


class StateError(StreamingError):
    """The monitor's database fails: a full disk, or a damaged file."""


class BrokerError(StreamingError):
    """Base of everything that Kafka reports."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached, or did not answer in time."""


class BrokerRefused(BrokerError):
    """The broker answers and says no: no retry can help."""


class OffsetGone(BrokerError):
    """Retention deleted the records to go on from, or their topic was made again."""


class CorruptInput(BrokerError):
    """A batch is damaged, of an unknown codec, or too large once decompressed: none of it was decided."""


class OffsetGap(BrokerError):
    """The log is shorter than what was committed, or was cut and has grown again: a person decides."""


class PublishFailed(BrokerError):
    """A transaction did not surely commit: its outcome is read back from the group's offsets."""


class MessageTooLarge(PublishFailed):
    """The topic refuses a record of this size."""


class TopicsChanged(PublishFailed):
    """A topic is not as it was when it was looked at: its partitions and limits are read again."""


class RecordsHeld(Exception):
    """Some records cannot have an outcome now: their partitions are held, the others go on.

    Parameters
    ----------
    records : sequence of HeldRecord
    """

    def __init__(self, records: Sequence[HeldRecord]) -> None:
        super().__init__(f"held: {', '.join(f'{one.partition}@{one.offset}' for one in records)}")
        self.records = tuple(records)


class NotInGroup(PublishFailed):
    """The consumer is no member of its group, so nothing fences its offsets: do not commit."""


class Fenced(PublishFailed):
    """A producer of the same transactional id was started later, or the coordinator timed us out."""


class ServiceError(StreamingError):
    """Base of everything that ``/classify`` answers or fails to answer."""


class ServiceUnavailable(ServiceError):
    """The service is down, slow or overloaded.

    Parameters
    ----------
    message : str
        What happened, without transaction data.
    reason : str
        Short label for metrics, such as ``"503"`` or ``"timeout"``.
    retry_after_s : float or None
        The service's own wish, from ``Retry-After``.
    """

    def __init__(self, message: str, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class ServiceRefused(ServiceError):
    """The address, the key or the protocol is wrong: a person has to look."""


class RejectedItem(NamedTuple):
    """One item that the service named in a 400.

    Attributes
    ----------
    position : int
        Position in the request, from 0.
    reason : str
        The machine-readable ``type`` of the first fault, such as ``"missing"``.
    message : str
        Field and explanation, without the value.
    """

    position: int
    reason: str
    message: str


class BatchRejected(ServiceError):
    """The service refused a batch, naming the items at fault, or none when it cannot.

    Parameters
    ----------
    message : str
        The service's ``error`` text.
    items : sequence of RejectedItem
        Empty when the service could not say which item is wrong.
    """

    def __init__(self, message: str, items: Sequence[RejectedItem] = ()) -> None:
        super().__init__(message)
        self.items = tuple(items)


class BatchTooLarge(ServiceError):
    """The service refused the size of a batch."""
