"""What travels between gateway and runners: raw float32 rows one way, raw float32 answers back.

BentoML's own formats cost more than the models do: pickling and a validated tensor schema take 200 µs a
call, these bytes none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import bentoml
import numpy as np
from _bentoml_impl.serde import Serde  # type: ignore[import-untyped]
from _bentoml_sdk.io_models import IORootModel  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import Response

from bentos.compat.bentoml_typing import Method
from bentos.releases.release import FEATURE_NAMES
from bentos.rows import Rows

if TYPE_CHECKING:
    from bentos.loaded_models import LoadedModel

MEDIA_TYPE = "application/octet-stream"
FLOAT32 = np.dtype("<f4")


def rows_of(body: bytes) -> Rows:
    """Return the rows of features in `body`, float32 [n, 30], without copying."""
    return np.frombuffer(body, FLOAT32).reshape(-1, len(FEATURE_NAMES))


def contributions_of(body: bytes) -> Rows:
    """Return the rows of contributions in `body`, float32 [n, 31]: the features', then the base value."""
    return np.frombuffer(body, FLOAT32).reshape(-1, len(FEATURE_NAMES) + 1)


class ReleaseRows(np.ndarray[Any, np.dtype[np.float32]]):
    """Rows that know which model they ask; so do the parts that BentoML's dispatcher splits them into."""

    model: LoadedModel

    @classmethod
    def of(cls, rows: Rows, model: LoadedModel) -> ReleaseRows:
        """Return a view of `rows` for `model`."""
        view = cast("ReleaseRows", rows.view(cls))
        view.model = model
        return view

    def __array_finalize__(self, source: object) -> None:
        """Take over the model from the array this one was made of."""
        self.model = getattr(source, "model", None)  # type: ignore[assignment]  # set by `of`


class FloatRows(IORootModel[Any]):  # type: ignore[misc]  # BentoML ships no types
    """An array of float32 that travels as its bytes."""

    __root_input__ = True  # the one argument is the body itself

    media_type = MEDIA_TYPE

    @classmethod
    async def from_http_request(cls, request: Request, serde: Serde) -> FloatRows:
        """Read the rows of a request body."""
        rows: FloatRows = cls.model_construct(root=rows_of(await request.body()))
        return rows

    @classmethod
    async def to_http_response(cls, obj: Rows, serde: Serde) -> Response:
        """Write an answer: one number or one row of numbers per row asked about."""
        return Response(np.ascontiguousarray(obj, FLOAT32).tobytes(), media_type=MEDIA_TYPE)


batched: Callable[[Method], Method] = bentoml.api(batchable=True, input_spec=FloatRows, output_spec=FloatRows)
"""Marks a runner's method whose rows BentoML batches adaptively; `bentos.settings` sets the sizes."""

unbatched: Callable[[Method], Method] = bentoml.api(input_spec=FloatRows, output_spec=FloatRows)
"""Marks a runner's method that takes rows as they come."""
