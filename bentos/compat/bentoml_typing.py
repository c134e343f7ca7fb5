"""BentoML's decorators with the types they lack: BentoML 1.4.40 ships no ``py.typed`` for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import bentoml

Method = TypeVar("Method", bound=Callable[..., Any])

api: Callable[[Method], Method] = bentoml.api
on_startup: Callable[[Method], Method] = bentoml.on_startup
on_shutdown: Callable[[Method], Method] = bentoml.on_shutdown
