"""Reads the answer of ``POST /classify`` and checks it against the request."""

from collections.abc import Sequence

import msgspec

from streaming.errors import ServiceUnavailable
from streaming.records import ServiceDecision

KINDS = frozenset({"approve", "review", "decline"})


class _Decision(msgspec.Struct, gc=False):
    """The fields of a decision that the bridge itself looks at."""

    decision: str
    release: str
    transaction_id: str | None = None


_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read = msgspec.json.Decoder(list[_Decision]).decode


def read_answer(body: bytes, identities: Sequence[str | None]) -> list[ServiceDecision]:
    """Take an answer apart, one decision for each transaction of the request.

    Parameters
    ----------
    body : bytes
        Body of a 200 answer: an array.
    identities : sequence of str or None
        ``transaction_id`` of each transaction sent, None where it has none.

    Returns
    -------
    list of ServiceDecision
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
        _decision(bytes(raw), decision, identity)
        for raw, decision, identity in zip(raws, decisions, identities, strict=True)
    ]


def _decision(raw: bytes, decision: _Decision, identity: str | None) -> ServiceDecision:
    if decision.decision not in KINDS:
        raise ServiceUnavailable("The service answered a decision of an unknown kind.", "answer")
    if identity is not None and decision.transaction_id != identity:
        raise ServiceUnavailable("The service answered decisions in another order.", "answer")
    return ServiceDecision(raw, decision.decision, decision.release)
