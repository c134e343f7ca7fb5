"""Records of the output topics: a decision with its source, a dead letter with its reason in headers."""

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
    return OutputRecord("decision", record.partition, record.key, value)


def make_dead_letter(record: InputRecord, rejection: Rejection, at_ms: int) -> OutputRecord:
    """Return the record for the dead-letter topic.

    Parameters
    ----------
    record : InputRecord
        What came in; a tombstone becomes an empty value: kafka-python sends nothing without key and value.
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
    return OutputRecord("dead_letter", record.partition, record.key, record.value or b"", headers)


def make_dead_letter_without_bytes(record: InputRecord, rejection: Rejection, at_ms: int) -> OutputRecord:
    """Return a dead letter without key and value, for a record that the topic would refuse for its size.

    The header ``error.omitted`` says so; topic, partition and offset tell where the bytes are.
    """
    headers = [*_headers(record, rejection, at_ms), (f"{PREFIX}omitted", b"key,value")]
    return OutputRecord("dead_letter", record.partition, None, b"", headers)


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
    return [(PREFIX + name, str(value).encode("utf-8", "replace")) for name, value in fields.items()]
