"""What the gateway asks of a runner, and a runner in this process that answers it."""

from __future__ import annotations

from typing import Protocol

import anyio.to_thread
from typing_extensions import override

from bentos.errors import ReleaseError, RunnerUnavailableError
from bentos.loaded_models import LoadedModel
from bentos.releases.holder import ReleaseHolder
from bentos.rows import Rows
from bentos.rpc.codec import rows_of


class Scorer(Protocol):
    """What the gateway needs of a runner."""

    async def score(self, version: str, rows: bytes) -> Rows:
        """Return one score per row of `rows`: float32 features, row after row.

        Parameters
        ----------
        version : str
            Which release scores: its version in the store.
        rows : bytes
            What to score.

        Raises
        ------
        RunnerUnavailableError
            If the runner does not answer, or says that it is overloaded.
        ScoringFailedError
            If it answers with another error.
        """

    async def contributions(self, version: str, rows: bytes) -> Rows:
        """Return [n, 31] contributions and base value per row of `rows`; raises as `score` does."""

    async def is_ready(self, version: str, timeout_s: float) -> bool:
        """Say whether the runner answers within `timeout_s` that it has loaded a version."""

    def close(self) -> None:
        """Close what was opened."""


class RunnerInstance(Protocol):
    """A runner service's instance."""

    @property
    def releases(self) -> ReleaseHolder[LoadedModel]:
        """What it has loaded."""


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
    async def score(self, version: str, rows: bytes) -> Rows:
        return (await self._model(version)).score(rows_of(rows))

    @override
    async def contributions(self, version: str, rows: bytes) -> Rows:
        model = await self._model(version)
        return await anyio.to_thread.run_sync(model.contributions, rows_of(rows))

    @override
    async def is_ready(self, version: str, timeout_s: float) -> bool:
        return self._instance.releases.holds(version)

    @override
    def close(self) -> None:
        """Do nothing: BentoML closes the runner."""

    async def _model(self, version: str) -> LoadedModel:
        try:
            return await self._instance.releases.obtain(version)
        except ReleaseError as error:
            raise RunnerUnavailableError(f"The release is not loaded: {error}") from error
