"""NeuralNetRunner and XGBoostRunner: each owns one model, in a process of its own, batching adaptively.

During a change of releases a runner holds two versions of its model; each call names the one it asks. Neither
torch nor mlflow is imported: the network is served from its ONNX form, 2x as fast on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio.to_thread
import bentoml

from bentos.bentoml_services import RunnerService
from bentos.compat.bentoml_typing import on_shutdown
from bentos.loaded_models import LoadedModel, load_network, load_trees
from bentos.releases.holder import ReleaseHolder
from bentos.releases.setup import process_board, process_choice, process_store
from bentos.releases.store import NEURAL_NET, XGBOOST, ModelStore
from bentos.rows import Rows
from bentos.rpc.codec import batched, unbatched
from bentos.settings.load import process_settings


class _Runner:
    """What both runners do."""

    releases: ReleaseHolder[LoadedModel]

    @batched
    async def score(self, features: Rows, /) -> Rows:
        """Return one score in [0, 1] per row of raw features, by the release that is to be served."""
        return self.releases.chosen().score(features)

    @unbatched
    async def contributions(self, features: Rows, /) -> Rows:
        """Return per row and feature the log-odds it added to the score."""
        return await anyio.to_thread.run_sync(self.releases.chosen().contributions, features)

    @on_shutdown
    async def stop(self) -> None:
        """Stop following the store."""
        self.releases.stop()


@bentoml.service(service_class=RunnerService)
class NeuralNetRunner(_Runner):
    """The network, in onnxruntime."""

    def __init__(self) -> None:
        load = partial(load_network, threads=process_settings().neural_net.threads)
        self.releases = _follow("neural_net", NEURAL_NET, load)


@bentoml.service(service_class=RunnerService)
class XGBoostRunner(_Runner):
    """The boosted trees."""

    def __init__(self) -> None:
        load = partial(load_trees, threads=process_settings().xgboost.threads)
        self.releases = _follow("xgboost", XGBOOST, load)


def _follow(
    role: str, name: str, load: Callable[[ModelStore, str], LoadedModel]
) -> ReleaseHolder[LoadedModel]:
    store = process_store()
    choice = process_choice(store, process_settings().release)
    holder = ReleaseHolder(role, name, partial(load, store), store, choice, process_board())
    holder.start()
    return holder
