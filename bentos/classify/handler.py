"""From the bytes of a request body to the bytes of its answer: decode, decide, give reasons, encode."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import msgspec

from bentos.classify.batching import Batcher, Decide
from bentos.classify.decoding import Decoder
from bentos.classify.explainer import Explainer

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Answer:
    """An answer, and how long its parts took."""

    body: bytes
    transactions: int
    decode_s: float
    encode_s: float


class ServedRelease:
    """What decides and explains with one release.

    Parameters
    ----------
    decide : Decide
        Transactions to decisions.
    explainer : Explainer
        Transactions to reasons.
    """

    def __init__(self, decide: Decide, explainer: Explainer) -> None:
        self.decide = decide
        self.explainer = explainer
        self.requests = 0
        """How many it is answering."""


class ClassifyHandler:
    """Answers bodies of ``POST /classify``, each with one release from beginning to end.

    Parameters
    ----------
    decoder : Decoder
        Body to transactions.
    batcher : Batcher
        Gathers transactions for a release's decisions.
    """

    served: ServedRelease
    """What requests that come from now on are answered with; replaced when another release becomes active."""

    def __init__(self, decoder: Decoder, batcher: Batcher) -> None:
        self._decoder = decoder
        self._batcher = batcher

    async def handle(self, body: bytes, wants_reasons: bool = False) -> Answer:
        """Return the answer to `body`.

        Raises
        ------
        RequestError
            With the status that the caller gets.
        """
        started = perf_counter()
        transactions, is_single = self._decoder.decode(body)
        decoded = perf_counter()
        served = self.served
        served.requests += 1
        try:
            decisions = await self._batcher.submit(transactions, served.decide)
            if wants_reasons:
                explained = await served.explainer.reasons(transactions)
                for decision, reasons in zip(decisions, explained, strict=True):
                    decision.reasons = reasons
        finally:
            served.requests -= 1
        encoding = perf_counter()
        answer = _encode(decisions[0] if is_single else decisions)
        return Answer(answer, len(transactions), decoded - started, perf_counter() - encoding)
