"""``?explain``: which features raised the alarm, from the models' own contributions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec
import numpy as np

from bentos.classify.decoding import pack_features
from bentos.decision_message import DecisionMessage
from bentos.errors import OverloadedError, RunnerUnavailableError, ScoringFailedError
from bentos.policy import Floats, logit
from bentos.releases.release import FEATURE_NAMES, Release
from bentos.rows import Rows
from bentos.rpc.scorer import Scorer
from bentos.settings.sections import ExplainSettings

FEATURES = len(FEATURE_NAMES)
MODELS = ("neural_net", "xgboost")
PROBABILITY = "fraud_probability"


class Explain(Enum):
    """For which decisions a caller asks reasons; the value is that of the query."""

    NONE = "false"
    ALL = "true"
    ALARMS = "alarms"


class Explainer:
    """Says which features moved the score that raised the alarm.

    Where one model is alarmed alone, its own score is explained; otherwise ``fraud_probability``, to which
    both contribute as the calibration weighs them. A contribution is what a feature added to the log-odds;
    base value and all contributions sum to the log-odds. The trees take 0.5 ms a row for it, 100x a score:
    rows go in chunks, one request at a time, few may wait.

    Parameters
    ----------
    release : Release
        Its calibration's coefficients weigh the models.
    neural_net, xgboost : Scorer
        The runners.
    settings : ExplainSettings
        How many reasons, and the bounds.
    """

    def __init__(
        self, release: Release, neural_net: Scorer, xgboost: Scorer, settings: ExplainSettings
    ) -> None:
        self._version, self._calibration = release.version, release.calibration
        self._neural_net = neural_net
        self._xgboost = xgboost
        self._settings = settings
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def explain(self, transactions: Sequence[Any], decisions: Sequence[DecisionMessage]) -> None:
        """Add to each decision its strongest reasons, strongest first, and what they explain.

        Raises
        ------
        OverloadedError
            If too many requests wait for reasons already.
        RunnerUnavailableError
            If the runners failed or were not in time.
        """
        if self._waiting >= self._settings.max_waiting_requests:
            raise OverloadedError("Too many requests wait for reasons.")
        self._waiting += 1
        size = self._settings.chunk_rows
        try:
            async with asyncio.timeout(self._settings.deadline_s), self._turn:
                for start in range(0, len(decisions), size):
                    chunk = slice(start, start + size)
                    await self._explain_chunk(transactions[chunk], decisions[chunk])
        except TimeoutError:
            raise RunnerUnavailableError("The runners did not give reasons in time.") from None
        finally:
            self._waiting -= 1

    async def _explain_chunk(self, transactions: Sequence[Any], decisions: Sequence[DecisionMessage]) -> None:
        rows = pack_features(transactions)
        answers = await asyncio.gather(
            self._neural_net.contributions(self._version, rows),
            self._xgboost.contributions(self._version, rows),
        )
        network_scores = np.array([decision.scores.neural_net for decision in decisions])
        trees_scores = np.array([decision.scores.xgboost for decision in decisions])
        calibration = self._calibration
        network = complete(_checked(answers[0], decisions), logit(network_scores, calibration.epsilon))
        trees = complete(_checked(answers[1], decisions), logit(trees_scores, calibration.epsilon))
        combined = calibration.neural_net * network + calibration.xgboost * trees
        combined[:, FEATURES] += calibration.intercept
        by_score = {"neural_net": network, "xgboost": trees, PROBABILITY: combined}
        for index, decision in enumerate(decisions):
            score = explained_score(decision)
            contributions, (base,) = np.split(by_score[score][index], [FEATURES])
            decision.reasons = strongest(contributions, self._settings.reasons)
            decision.reasons_for = {
                "score": score,
                "base_value": float(base),
                "log_odds": float(base + contributions.sum()),
            }


def explained_score(decision: DecisionMessage) -> str:
    """Return the score whose reasons are the reasons of `decision`."""
    alarmed = [name for name in msgspec.json.decode(decision.raised_by) if name in MODELS]
    return str(alarmed[0]) if len(alarmed) == 1 else PROBABILITY


def complete(values: Floats, log_odds: Floats) -> Floats:
    """Return contributions that sum with their base value to `log_odds`, exactly.

    Integrated gradients are sums of a few steps, and log-odds of a score near 0 or 1 are clipped. The
    difference is shared out in proportion to the size of the contributions.

    Parameters
    ----------
    values : ndarray [n, features + 1]
        Contributions, then the base value.
    log_odds : ndarray [n]
        What they should sum to.

    Examples
    --------
    >>> complete(np.array([[1.0, -3.0, 0.5]]), np.array([-1.1])).round(3).tolist()
    [[1.1, -2.7, 0.5]]
    """
    contributions, base = values[:, :-1], values[:, -1:]
    sizes = np.abs(contributions)
    totals = sizes.sum(axis=1, keepdims=True)
    missing = log_odds[:, None] - values.sum(axis=1, keepdims=True)
    shares = np.divide(sizes, totals, out=np.zeros_like(sizes), where=totals > 0)
    return np.hstack([contributions + missing * shares, np.where(totals > 0, base, base + missing)])


def _checked(answer: Rows, decisions: Sequence[DecisionMessage]) -> Floats:
    values = answer.astype(np.float64)
    if values.shape != (len(decisions), FEATURES + 1) or not np.all(np.isfinite(values)):
        raise ScoringFailedError("A runner gave an answer that is not a contribution.")
    return values


def strongest(contributions: Floats, count: int) -> list[dict[str, Any]]:
    """Return the `count` features that moved the score most, either way, strongest first.

    Examples
    --------
    >>> row = np.zeros(30)
    >>> row[[1, 14]] = 0.5, -2.0
    >>> strongest(row, 2)
    [{'feature': 'V14', 'contribution': -2.0}, {'feature': 'V1', 'contribution': 0.5}]
    """
    order = np.argsort(-np.abs(contributions), kind="stable")[:count]
    return [{"feature": FEATURE_NAMES[index], "contribution": float(contributions[index])} for index in order]
