"""Sends dead letters back to their topic, each once, however often it is run or killed."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

from streaming.output_records import PREFIX
from streaming.ports import GroupMetadata, Sink
from streaming.records import InputRecord, NextOffset, OutputRecord

KIND = "redriven"
ORIGIN = "redrive."
MAX_TRANSACTION_RECORDS = 1000

Offsets = Mapping[int, int]
Done = Callable[[str | None], Offsets]
"""Reason (None: any) to the offsets up to which letters of that reason were redriven before."""


@dataclass(frozen=True)
class RedriveFilter:
    """Which letters to send back: those of one topic, perhaps of one ``error.reason`` only."""

    topic: str
    reason: str | None = None


@dataclass
class RedriveResult:
    """What a redrive did, or would do: letters by reason."""

    sent: Counter[str] = field(default_factory=Counter)
    done_before: Counter[str] = field(default_factory=Counter)
    omitted: Counter[str] = field(default_factory=Counter)
    other_reason: int = 0
    other_topic: int = 0


def redrive(  # what it reads, what it writes, and which of it
    letters: Iterable[list[InputRecord]],
    sink: Sink | None,
    metadata: GroupMetadata,
    done: Done,
    wanted: RedriveFilter,
    report: Callable[[int], None] = lambda sent: None,
    marks: Container[tuple[int, int]] = (),
) -> RedriveResult:
    """Send dead letters back.

    Parameters
    ----------
    letters : iterable of list of InputRecord
        Records of the dead-letter topic with their headers.
    sink : Sink or None
        None for a dry run.
    metadata : GroupMetadata
        Under which the progress is committed, in one transaction with the letters.
    done : callable
        What earlier runs have sent back.
    wanted : RedriveFilter
        A letter that names another topic is left where it is; one that names none is taken.
    report : callable
        Called with the number sent after each chunk.
    marks : container of (int, int)
        Partition and offset of letters that were found in their topic again, from `read_marks`.

    Returns
    -------
    RedriveResult
    """
    result = RedriveResult()
    for chunk in letters:
        for start in range(0, len(chunk), MAX_TRANSACTION_RECORDS):
            part = chunk[start : start + MAX_TRANSACTION_RECORDS]
            outputs = [output for letter in part if (output := _sorted(letter, wanted, done, marks, result))]
            if sink is not None:
                after = {letter.partition: NextOffset(letter.offset + 1) for letter in part}
                sink.publish(outputs, after, metadata)
            report(result.sent.total())
    return result


def _sorted(
    letter: InputRecord,
    wanted: RedriveFilter,
    done: Done,
    marks: Container[tuple[int, int]],
    result: RedriveResult,
) -> OutputRecord | None:
    headers = dict(letter.headers)
    found = headers.get(f"{PREFIX}reason", b"unknown").decode("utf-8", "replace")
    if headers.get(f"{PREFIX}topic", wanted.topic.encode()) != wanted.topic.encode():
        result.other_topic += 1
    elif wanted.reason is not None and found != wanted.reason:
        result.other_reason += 1
    elif (letter.partition, letter.offset) in marks or any(
        letter.offset < done(which).get(letter.partition, 0) for which in (None, found)
    ):
        result.done_before[found] += 1
    elif f"{PREFIX}omitted" in headers:
        result.omitted[found] += 1
    else:
        result.sent[found] += 1
        return _back(letter, headers, found)
    return None


def read_marks(records: Iterable[list[InputRecord]], letters_topic: str) -> set[tuple[int, int]]:
    """Return partition and offset of the letters that records of the input were redriven from."""
    marks = set()
    for chunk in records:
        for record in chunk:
            headers = dict(record.headers)
            if headers.get(f"{ORIGIN}topic") == letters_topic.encode():
                partition, offset = (headers.get(f"{ORIGIN}{name}", b"") for name in ("partition", "offset"))
                marks.add((_number(partition, -1), _number(offset, -1)))
    return marks


def _back(letter: InputRecord, headers: Mapping[str, bytes], reason: str) -> OutputRecord:
    was_tombstone = reason == "tombstone" and letter.key is not None
    carried = [(name, value) for name, value in letter.headers if not name.startswith((PREFIX, ORIGIN))]
    origin = {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset}
    return OutputRecord(
        KIND,
        _number(headers.get(f"{PREFIX}partition"), letter.partition),
        letter.key,
        None if was_tombstone else letter.value or b"",
        [*carried, *((ORIGIN + name, str(value).encode()) for name, value in origin.items())],
    )


def _number(text: bytes | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdigit() else otherwise
