"""What the gateway asks of a runner, and a runner in this process that answers it."""

from __future__ import annotations

from typing import Protocol

from typing_extensions import override

from bentos.rpc.codec import Rows, rows_of


class Scorer(Protocol):
    """What the gateway needs of a runner."""

    async def score(self, rows: bytes) -> Rows:
        """Return one score per row of `rows`: float32 features, row after row.

        Raises
        ------
        RunnerUnavailableError
            If the runner does not answer, or says that it is overloaded.
        ScoringFailedError
            If it answers with another error.
        """

    async def contributions(self, rows: bytes) -> Rows:
        """Return one row of contributions per row of `rows`; raises as `score` does."""

    async def is_ready(self, timeout_s: float) -> bool:
        """Say whether the runner answers within `timeout_s`."""

    def close(self) -> None:
        """Close what was opened."""


class RunnerInstance(Protocol):
    """A runner service's instance."""

    async def score(self, features: Rows, /) -> Rows:
        """Return one score per row."""

    async def contributions(self, features: Rows, /) -> Rows:
        """Return one row of contributions per row."""


class InProcessRunner(Scorer):
    """A runner in this process, as under ``bentoml serve --development``.

    Parameters
    ----------
    instance : NeuralNetRunner or XGBoostRunner
        The runner service's instance.
    """

    def __init__(self, instance: RunnerInstance) -> None:
        self._instance = instance

    @override
    async def score(self, rows: bytes) -> Rows:
        return await self._instance.score(rows_of(rows))

    @override
    async def contributions(self, rows: bytes) -> Rows:
        return await self._instance.contributions(rows_of(rows))

    @override
    async def is_ready(self, timeout_s: float) -> bool:
        return True

    @override
    def close(self) -> None:
        """Do nothing: BentoML closes the runner."""
