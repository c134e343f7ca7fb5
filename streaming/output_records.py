"""Records of the output topics: a decision with its source, a dead letter with its reason in headers."""

import msgspec

from streaming.records import Headers, InputRecord, OutputRecord, Rejection, ServiceDecision

PREFIX = "error."
# Long texts from a service must not make a dead letter larger than its topic takes.
MAX_MESSAGE_CHARACTERS = 500


def make_decision_record(record: InputRecord, decision: ServiceDecision, decided_at_ms: int) -> OutputRecord:
    """Return the record for the decisions topic: the decision, its source, its time.

    Examples
    --------
    >>> record = InputRecord("transactions", 2, 41, 0, b"T-17", b"{}")
    >>> decision = ServiceDecision(b'{"decision":"approve"}', "approve", "1")
    >>> make_decision_record(record, decision, 9).value.decode()
    '{"decision":"approve","source":{"topic":"transactions","partition":2,"offset":41},"decided_at_ms":9}'
    """
    value = b'%b,"source":{"topic":"%b","partition":%d,"offset":%d},"decided_at_ms":%d}' % (
        decision.raw[:-1],
        record.topic.encode("ascii"),  # a topic name is ASCII without quotes
        record.partition,
        record.offset,
        decided_at_ms,
    )
    headers = _carried(record) if record.headers else []
    return OutputRecord("decision", record.partition, record.key, value, headers, record.offset)


def make_dead_letter(record: InputRecord, rejection: Rejection, at_ms: int) -> OutputRecord:
    """Return the record for the dead-letter topic.

    Parameters
    ----------
    record : InputRecord
        What came in; its headers are carried on. Without key and value it gets an empty value.
    rejection : Rejection
        Why it cannot be decided.
    at_ms : int
        Now, milliseconds since 1970.

    Examples
    --------
    >>> record = InputRecord("transactions", 2, 41, 0, b"T-17", b"{")
    >>> letter = make_dead_letter(record, Rejection("parse", "not_json", "The value is not JSON."), 9)
    >>> letter.key, letter.value, dict(letter.headers)["error.reason"]
    (b'T-17', b'{', b'not_json')
    """
    headers = _headers(record, rejection, at_ms)
    # kafka-python sends nothing that has neither key nor value.
    value = b"" if record.key is None and record.value is None else record.value
    return OutputRecord("dead_letter", record.partition, record.key, value, headers, record.offset)


def make_dead_letter_without_bytes(record: InputRecord, rejection: Rejection, at_ms: int) -> OutputRecord:
    """Return a dead letter without key and value, for a record that the topic would refuse for its size.

    The header ``error.omitted`` says so; topic, partition and offset tell where the bytes are.
    """
    headers = [*_headers(record, rejection, at_ms), (f"{PREFIX}omitted", b"key,value")]
    return OutputRecord("dead_letter", record.partition, None, b"", headers, record.offset)


def _headers(record: InputRecord, rejection: Rejection, at_ms: int) -> Headers:
    fields = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "stage": rejection.stage,
        "reason": rejection.reason,
        "message": rejection.message[:MAX_MESSAGE_CHARACTERS],
        "attempts": rejection.attempts,
        "at_ms": at_ms,
    }
    ours = [(PREFIX + name, str(value).encode("utf-8", "replace")) for name, value in fields.items()]
    return [*_carried(record), *ours]


def _carried(record: InputRecord) -> Headers:
    # Such as `traceparent`. Headers of an earlier dead letter would be taken for this one's.
    return [(name, value) for name, value in record.headers if not name.startswith(PREFIX)]


class RecordSource(msgspec.Struct, frozen=True, gc=False):
    """The record of the input that an output record belongs to.

    Attributes
    ----------
    topic, partition, offset
        Its identity.
    key : bytes or None
    decided_at_ms : int
        When the output was made, milliseconds since 1970.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    decided_at_ms: int


class SourcePlace(msgspec.Struct, gc=False):
    """`source` of a decision record: the transaction it decides."""

    topic: str
    partition: int
    offset: int


class _DecisionSource(msgspec.Struct, gc=False):
    source: SourcePlace
    decided_at_ms: int


_read_decision = msgspec.json.Decoder(_DecisionSource).decode


def read_source(output: InputRecord) -> RecordSource | None:
    """Return where a decision or a dead letter came from; None for what no bridge has written.

    Examples
    --------
    >>> value = b'{"source":{"topic":"t","partition":2,"offset":41},"decided_at_ms":9}'
    >>> read_source(InputRecord("decisions", 2, 7, 9, b"T-17", value)).offset
    41
    """
    headers = dict(output.headers)
    try:
        if PREFIX + "offset" in headers:
            topic = headers[PREFIX + "topic"].decode()
            numbers = (int(headers[PREFIX + name]) for name in ("partition", "offset", "at_ms"))
            partition, offset, at_ms = numbers
            return RecordSource(topic, partition, offset, output.key, at_ms)
        decision = _read_decision(output.value or b"")
    except (KeyError, ValueError):
        return None
    source = decision.source
    return RecordSource(source.topic, source.partition, source.offset, output.key, decision.decided_at_ms)
