"""From the bytes of a request body to the bytes of its answer: decode, decide, give reasons, encode."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import msgspec

from bentos.classify.batching import Batcher
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


class ClassifyHandler:
    """Answers bodies of ``POST /classify``.

    Parameters
    ----------
    decoder : Decoder
        Body to transactions.
    batcher : Batcher
        Transactions to decisions.
    explainer : Explainer
        Transactions to reasons.
    """

    def __init__(self, decoder: Decoder, batcher: Batcher, explainer: Explainer) -> None:
        self._decoder = decoder
        self._batcher = batcher
        self._explainer = explainer

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
        decisions = await self._batcher.submit(transactions)
        if wants_reasons:
            for decision, reasons in zip(decisions, await self._explainer.reasons(transactions), strict=True):
                decision.reasons = reasons
        encoding = perf_counter()
        answer = _encode(decisions[0] if is_single else decisions)
        return Answer(answer, len(transactions), decoded - started, perf_counter() - encoding)
