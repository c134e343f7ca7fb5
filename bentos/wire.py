"""The hop between gateway and runners: raw float32 rows one way, raw float32 answers back.

BentoML's own formats cost more here than the models do: pickling and a validated tensor schema
take 200 µs a call, these bytes none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from _bentoml_impl.serde import Serde
from _bentoml_sdk.io_models import IORootModel
from starlette.requests import Request
from starlette.responses import Response

from bentos.release import FEATURE_NAMES

MEDIA_TYPE = "application/octet-stream"
FLOAT32 = np.dtype("<f4")

Rows = npt.NDArray[np.float32]


class FloatRows(IORootModel[Any]):  # type: ignore[misc]  # BentoML's base is untyped
    """An array of float32 that travels as its bytes."""

    media_type = MEDIA_TYPE

    @classmethod
    async def from_http_request(cls, request: Request, serde: Serde) -> FloatRows:
        """Read the rows of a request body."""
        rows = np.frombuffer(await request.body(), FLOAT32).reshape(-1, len(FEATURE_NAMES))
        return cls.model_construct(root=rows)

    @classmethod
    async def to_http_response(cls, obj: Rows, serde: Serde) -> Response:
        """Write an answer: one number or one row of numbers per row asked about."""
        return Response(np.ascontiguousarray(obj, FLOAT32).tobytes(), media_type=MEDIA_TYPE)
