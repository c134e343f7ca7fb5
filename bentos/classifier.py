"""Transactions to decisions: asks both runners at once, then applies the release's policy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from bentos.decoding import pack_features
from bentos.errors import RunnerUnavailable
from bentos.hop import Scorer
from bentos.policy import RISK_LEVELS, Floats, Verdict, decide
from bentos.release import Release


class PairScores(msgspec.Struct, gc=False):
    """Each model's own output."""

    neural_net: float
    xgboost: float


class Decided(msgspec.Struct, gc=False, omit_defaults=True):
    """One decision on its way out; `bentos.schemas.Decision` is its published form."""

    decision: str
    is_fraud: bool
    fraud_probability: float
    risk_level: str
    scores: PairScores
    release: str
    models: msgspec.Raw
    transaction_id: str | msgspec.UnsetType = msgspec.UNSET
    reasons: Any = msgspec.UNSET


class Classifier:
    """Both runners and the policy of one release.

    Parameters
    ----------
    release : Release
        What is served.
    neural_net, xgboost : Scorer
        Its runners.
    retry_after_s : int
        What a caller is told when a runner answers nonsense.
    """

    def __init__(self, release: Release, neural_net: Scorer, xgboost: Scorer, retry_after_s: int = 1) -> None:
        self.release = release
        self._neural_net = neural_net
        self._xgboost = xgboost
        self._retry_after_s = retry_after_s
        tags = {"neural_net": release.neural_net_tag, "xgboost": release.xgboost_tag}
        self._models = msgspec.Raw(msgspec.json.encode(tags))
        self._words = [
            (verdict.name.lower(), verdict is not Verdict.APPROVE, RISK_LEVELS[verdict])
            for verdict in Verdict
        ]

    async def decide(self, transactions: Sequence[Any]) -> list[Decided]:
        """Return one decision per transaction, in order."""
        rows = pack_features(transactions)
        answers = await asyncio.gather(self._neural_net.score(rows), self._xgboost.score(rows))
        neural_net, xgboost = (self._checked(scores, len(transactions)) for scores in answers)
        return self._word(transactions, neural_net, xgboost)

    def _checked(self, scores: Any, length: int) -> Floats:
        """Return the scores as float64; fewer, more, or impossible ones never become a decision."""
        checked: Floats = scores.astype(np.float64)
        if checked.shape != (length,) or not np.all((checked >= 0) & (checked <= 1)):
            raise RunnerUnavailable("A runner gave an answer that is not a score.", self._retry_after_s)
        return checked

    def _word(self, transactions: Sequence[Any], neural_net: Floats, xgboost: Floats) -> list[Decided]:
        release = self.release
        codes = decide(neural_net, xgboost, release.thresholds).tolist()
        probabilities = release.calibration.probability(neural_net, xgboost).tolist()
        words, number, models = self._words, release.number, self._models
        return [
            Decided(
                *words[code][:2],
                probability,
                words[code][2],
                PairScores(network, trees),
                number,
                models,
                row.transaction_id,
            )
            for row, code, probability, network, trees in zip(
                transactions, codes, probabilities, neural_net.tolist(), xgboost.tolist(), strict=True
            )
        ]
