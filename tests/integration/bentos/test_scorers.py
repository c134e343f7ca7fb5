"""Both runners, loaded from the store in this process, against the checks every scorer must pass."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models.model import ModelStore

from bentos.runners import NeuralNetRunner, XGBoostRunner
from tests.scorer_checks import CHECKS

Check = Callable[[Callable[[], Any]], Awaitable[None]]


@pytest.fixture
def store(small_home: Path) -> Iterator[None]:
    with BentoMLContainer.model_store.patch(ModelStore(small_home / "models")):
        yield


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("runner", [NeuralNetRunner, XGBoostRunner], ids=lambda runner: runner.name)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_runner(runner: Any, check: Check) -> None:
    await check(runner.inner)
