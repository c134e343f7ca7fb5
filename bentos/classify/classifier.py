"""Transactions to decisions: calls both runners at once, then applies the release's policy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from bentos.classify.decoding import pack_features
from bentos.decision_message import DecisionMessage, ModelScores
from bentos.errors import ScoringFailedError
from bentos.metrics import Metrics
from bentos.policy import (
    COMBINATIONS,
    RISK_LEVELS,
    Alarm,
    Floats,
    action_for,
    is_fraud,
    names_of,
    raise_alarms,
)
from bentos.releases.release import FEATURE_NAMES, Release
from bentos.rows import Rows
from bentos.rpc.codec import rows_of
from bentos.rpc.scorer import Scorer

AMOUNT = FEATURE_NAMES.index("Amount")


class Classifier:
    """Both runners and the policy of one release.

    Parameters
    ----------
    release : Release
        What is served.
    neural_net, xgboost : Scorer
        Its runners.
    metrics : Metrics
        Gets every score.
    """

    def __init__(self, release: Release, neural_net: Scorer, xgboost: Scorer, metrics: Metrics) -> None:
        self.release = release
        self._neural_net = neural_net
        self._xgboost = xgboost
        self._metrics = metrics
        tags = {"neural_net": release.neural_net_tag, "xgboost": release.xgboost_tag}
        self._models = msgspec.Raw(msgspec.json.encode(tags))
        self._outcomes = [_outcome(Alarm(number)) for number in range(COMBINATIONS)]

    async def decide(
        self, transactions: Sequence[Any], requests: int, queue_s: float
    ) -> list[DecisionMessage]:
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
            If it answered with something else than scores.
        """
        started = perf_counter()
        rows, version = pack_features(transactions), self.release.version
        answers = await asyncio.gather(
            self._neural_net.score(version, rows), self._xgboost.score(version, rows)
        )
        answered = perf_counter()
        neural_net, xgboost = (_checked(scores, len(transactions)) for scores in answers)
        decisions = self._decide_scored(transactions, rows, neural_net, xgboost)
        self._metrics.record_batch(
            len(transactions), requests, queue_s, answered - started, perf_counter() - answered
        )
        return decisions

    def _decide_scored(
        self, transactions: Sequence[Any], rows: bytes, neural_net: Floats, xgboost: Floats
    ) -> list[DecisionMessage]:
        probabilities = self.release.calibration.probability(neural_net, xgboost)
        amounts = rows_of(rows)[:, AMOUNT].astype(np.float64)  # as the models take them: rounded to float32
        alarms = raise_alarms(neural_net, xgboost, probabilities * amounts, self.release.rule)
        self._metrics.record_scores(neural_net, xgboost, probabilities)
        outcomes, number, models = self._outcomes, self.release.number, self._models
        decisions = []
        for row, alarm, probability, network, trees in zip(
            transactions,
            alarms.tolist(),
            probabilities.tolist(),
            neural_net.tolist(),
            xgboost.tolist(),
            strict=True,
        ):
            decision, fraud, risk, raised = outcomes[alarm]
            scores = ModelScores(network, trees)
            decisions.append(
                DecisionMessage(
                    row.transaction_id, decision, fraud, probability, risk, raised, scores, number, models
                )
            )
        return decisions


def _outcome(alarms: Alarm) -> tuple[str, bool, str, msgspec.Raw]:
    """Return decision, is_fraud, risk_level and raised_by of a combination of alarms."""
    action = action_for(alarms)
    raised_by = msgspec.Raw(msgspec.json.encode(names_of(alarms)))
    return action.name.lower(), is_fraud(alarms), RISK_LEVELS[action], raised_by


def _checked(scores: Rows, length: int) -> Floats:
    """Return the scores as float64, and refuse a wrong number of them and impossible ones."""
    checked = scores.astype(np.float64)
    if checked.shape != (length,) or not ((checked >= 0) & (checked <= 1)).all():
        raise ScoringFailedError("A runner gave an answer that is not a score.")
    return checked
