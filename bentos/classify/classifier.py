"""Transactions to decisions: asks both runners at once, then applies the release's policy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from bentos.classify.decoding import pack_features
from bentos.errors import ScoringFailedError
from bentos.metrics import Metrics
from bentos.policy import RISK_LEVELS, Floats, Verdict, decide
from bentos.release import Release
from bentos.rpc.client import Scorer
from bentos.rpc.codec import Rows


class PairScores(msgspec.Struct, gc=False):
    """Each model's own output."""

    neural_net: float
    xgboost: float


class Decided(msgspec.Struct, gc=False, omit_defaults=True):
    """One decision on its way out; `bentos.schemas.Decision` is its published form."""

    transaction_id: str | msgspec.UnsetType
    decision: str
    is_fraud: bool
    fraud_probability: float
    risk_level: str
    scores: PairScores
    release: str
    models: msgspec.Raw
    reasons: Any = msgspec.UNSET


class Classifier:
    """Both runners and the policy of one release.

    Parameters
    ----------
    release : Release
        What is served.
    neural_net, xgboost : Scorer
        Its runners.
    metrics : Metrics
        Told every score.
    """

    def __init__(self, release: Release, neural_net: Scorer, xgboost: Scorer, metrics: Metrics) -> None:
        self.release = release
        self._neural_net = neural_net
        self._xgboost = xgboost
        self._metrics = metrics
        tags = {"neural_net": release.neural_net_tag, "xgboost": release.xgboost_tag}
        self._models = msgspec.Raw(msgspec.json.encode(tags))
        self._words = [
            (verdict.name.lower(), verdict is not Verdict.APPROVE, RISK_LEVELS[verdict])
            for verdict in Verdict
        ]

    async def decide(self, transactions: Sequence[Any], requests: int, queue_s: float) -> list[Decided]:
        """Return one decision per transaction, in order.

        Parameters
        ----------
        transactions : sequence
            As decoded.
        requests : int
            How many requests they came with, for the metrics.
        queue_s : float
            How long the first of them waited, for the metrics.

        Raises
        ------
        RunnerUnavailableError
            If a runner did not answer.
        ScoringFailedError
            If it answered otherwise than with scores.
        """
        started = perf_counter()
        rows = pack_features(transactions)
        answers = await asyncio.gather(self._neural_net.score(rows), self._xgboost.score(rows))
        answered = perf_counter()
        neural_net, xgboost = (_checked(scores, len(transactions)) for scores in answers)
        decisions = self._word(transactions, neural_net, xgboost)
        self._metrics.batch(
            len(transactions), requests, queue_s, answered - started, perf_counter() - answered
        )
        return decisions

    def _word(self, transactions: Sequence[Any], neural_net: Floats, xgboost: Floats) -> list[Decided]:
        codes = decide(neural_net, xgboost, self.release.thresholds)
        probabilities = self.release.calibration.probability(neural_net, xgboost)
        self._metrics.scored(neural_net, xgboost, probabilities, np.bincount(codes, minlength=3).tolist())
        words, number, models = self._words, self.release.number, self._models
        decisions = []
        for row, code, probability, network, trees in zip(
            transactions,
            codes.tolist(),
            probabilities.tolist(),
            neural_net.tolist(),
            xgboost.tolist(),
            strict=True,
        ):
            word, is_fraud, risk = words[code]
            scores = PairScores(network, trees)
            decisions.append(
                Decided(row.transaction_id, word, is_fraud, probability, risk, scores, number, models)
            )
        return decisions


def _checked(scores: Rows, length: int) -> Floats:
    """Return the scores as float64; fewer, more, or impossible ones never become a decision."""
    checked = scores.astype(np.float64)
    if checked.shape != (length,) or not np.all((checked >= 0) & (checked <= 1)):
        raise ScoringFailedError("A runner gave an answer that is not a score.")
    return checked
