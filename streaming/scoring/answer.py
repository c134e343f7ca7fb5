"""Reads what ``/classify`` answers and writes it as a decision record."""

from collections.abc import Sequence

import msgspec

from streaming.errors import ServiceUnavailable
from streaming.records import InputRecord, OutputRecord, Verdict

KINDS = frozenset({"approve", "review", "decline"})


class _Decision(msgspec.Struct, gc=False):
    """The fields of a decision that the bridge itself looks at."""

    decision: str
    release: str
    transaction_id: str | None = None


_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read = msgspec.json.Decoder(list[_Decision]).decode


def read_answer(body: bytes, identities: Sequence[str | None]) -> list[Verdict]:
    """Take an answer apart, one verdict for each transaction of the request.

    Parameters
    ----------
    body : bytes
        Body of a 200 answer: an array.
    identities : sequence of str or None
        ``transaction_id`` of each transaction sent, None where it has none.

    Returns
    -------
    list of Verdict
        In the order of the request.

    Raises
    ------
    ServiceUnavailable
        If the answer is not what the contract promises: whatever sits there is no sound service.
    """
    try:
        raws, decisions = _split(body), _read(body)
    except ValueError as error:
        raise ServiceUnavailable(
            "The service answered 200 with something else than decisions.", "answer"
        ) from error
    if len(raws) != len(identities):
        message = f"The service answered {len(raws)} decisions for {len(identities)} transactions."
        raise ServiceUnavailable(message, "answer")
    return [
        _verdict(bytes(raw), decision, identity)
        for raw, decision, identity in zip(raws, decisions, identities, strict=True)
    ]


def _verdict(raw: bytes, decision: _Decision, identity: str | None) -> Verdict:
    if decision.decision not in KINDS:
        raise ServiceUnavailable("The service answered a decision of an unknown kind.", "answer")
    if identity is not None and decision.transaction_id != identity:
        raise ServiceUnavailable("The service answered decisions in another order.", "answer")
    return Verdict(raw, decision.decision, decision.release)


def decision_record(record: InputRecord, verdict: Verdict, decided_at_ms: int) -> OutputRecord:
    """Return the record for the decisions topic: the decision, its source, its time.

    Examples
    --------
    >>> record = InputRecord("transactions", 2, 41, 0, b"T-17", b"{}")
    >>> decision_record(record, Verdict(b'{"decision":"approve"}', "approve", "1"), 9).value.decode()
    '{"decision":"approve","source":{"topic":"transactions","partition":2,"offset":41},"decided_at_ms":9}'
    """
    value = b'%b,"source":{"topic":"%b","partition":%d,"offset":%d},"decided_at_ms":%d}' % (
        verdict.raw[:-1],
        record.topic.encode("ascii"),  # a topic name is ASCII without quotes
        record.partition,
        record.offset,
        decided_at_ms,
    )
    return OutputRecord("decision", record.partition, record.key, value)
