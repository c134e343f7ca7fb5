"""``?explain=true``: which features moved the score most, from both models' own contributions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from bentos.classify.decoding import pack_features
from bentos.errors import OverloadedError, RunnerUnavailableError, ScoringFailedError
from bentos.policy import Floats
from bentos.releases.release import FEATURE_NAMES, Release
from bentos.rpc.scorer import Scorer
from bentos.settings.sections import ExplainSettings


class Explainer:
    """Combines the contributions of both models as the calibration combines their scores.

    A contribution is what a feature added to the log-odds of ``fraud_probability``. The trees take 0.5 ms a
    row for it, 100x a score: rows go in chunks, one request at a time, few may wait.

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

    async def reasons(self, transactions: Sequence[Any]) -> list[list[dict[str, Any]]]:
        """Return for each transaction its strongest reasons, strongest first.

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
        try:
            async with asyncio.timeout(self._settings.deadline_s), self._turn:
                return await self._in_chunks(transactions)
        except TimeoutError:
            raise RunnerUnavailableError("The runners did not give reasons in time.") from None
        finally:
            self._waiting -= 1

    async def _in_chunks(self, transactions: Sequence[Any]) -> list[list[dict[str, Any]]]:
        reasons: list[list[dict[str, Any]]] = []
        size = self._settings.chunk_rows
        for start in range(0, len(transactions), size):
            contributions = await self._contributions(transactions[start : start + size])
            reasons.extend(strongest(row, self._settings.reasons) for row in contributions)
        return reasons

    async def _contributions(self, transactions: Sequence[Any]) -> Floats:
        rows = pack_features(transactions)
        network, trees = await asyncio.gather(
            self._neural_net.contributions(self._version, rows),
            self._xgboost.contributions(self._version, rows),
        )
        combined: Floats = self._calibration.neural_net * network.astype(
            np.float64
        ) + self._calibration.xgboost * trees.astype(np.float64)
        if combined.shape != (len(transactions), len(FEATURE_NAMES)) or not np.all(np.isfinite(combined)):
            raise ScoringFailedError("A runner gave an answer that is not a contribution.")
        return combined


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
    return [{"feature": FEATURE_NAMES[place], "contribution": float(contributions[place])} for place in order]
