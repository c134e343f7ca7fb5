"""From the bytes of a request body to the bytes of its answer: decode, decide, give reasons, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import msgspec

from bentos.classify.batching import Batcher, Decide
from bentos.classify.decoding import Decoded, Decoder
from bentos.classify.explainer import Explain, Explainer
from bentos.decision_message import DecisionMessage

_encode = msgspec.json.Encoder().encode


# A body of this size is read strictly in 3 ms at most. A longer one goes to a thread, one at a time, so that
# it delays no other caller for long.
SMALL_BODY_BYTES = 64 * 1024


@dataclass(slots=True)
class Answer:
    """An answer, what it decides, and how long its parts took."""

    body: bytes
    decisions: Sequence[DecisionMessage]
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
        self._strict_thread = ThreadPoolExecutor(1, "strict decoder")

    async def handle(self, body: bytes, explain: Explain = Explain.NONE) -> Answer:
        """Return the answer to `body`.

        Raises
        ------
        RequestError
            With the status that the caller gets.
        """
        started = perf_counter()
        transactions, is_single = self._decoder.decode_fast(body) or await self._decode_strictly(body)
        decoded = perf_counter()
        served = self.served
        served.requests += 1
        try:
            decisions = await self._batcher.submit(transactions, served.decide)
            if explain is not Explain.NONE:
                await _explain(served.explainer, explain, transactions, decisions)
        finally:
            served.requests -= 1
        encoding = perf_counter()
        answer = _encode(decisions[0] if is_single else decisions)
        return Answer(answer, decisions, decoded - started, perf_counter() - encoding)

    async def _decode_strictly(self, body: bytes) -> Decoded:
        if len(body) <= SMALL_BODY_BYTES:
            return self._decoder.decode_strictly(body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._strict_thread, self._decoder.decode_strictly, body)


async def _explain(
    explainer: Explainer, explain: Explain, transactions: Sequence[Any], decisions: Sequence[DecisionMessage]
) -> None:
    wanted = [
        index
        for index, decision in enumerate(decisions)
        if explain is Explain.ALL or decision.decision != "approve"
    ]
    if wanted:
        await explainer.explain([transactions[i] for i in wanted], [decisions[i] for i in wanted])
