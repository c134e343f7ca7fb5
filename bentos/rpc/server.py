"""``POST /score/VERSION`` of a runner on plain ASGI: bytes in, BentoML's adaptive batching, bytes out.

BentoML's own route costs a runner 0.8 ms of CPU a call, the model 0.1. Both use the same dispatcher. While
gateways change over, a batch may hold rows for two releases; each row is scored by the release it asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate, groupby

import anyio.to_thread
import numpy as np
from bentoml.exceptions import ServiceUnavailable

from bentos.asgi import Application, Receive, Scope, Send, read_body, send_answer
from bentos.compat.gc_freeze import freeze_after_startup
from bentos.compat.graceful_shutdown import GracefulShutdown
from bentos.errors import ReleaseError
from bentos.loaded_models import LoadedModel
from bentos.releases.holder import ReleaseHolder
from bentos.rows import Rows
from bentos.rpc.codec import FLOAT32, MEDIA_TYPE, ReleaseRows, rows_of

HEADERS = [(b"content-type", MEDIA_TYPE.encode())]
SCORE, CONTRIBUTIONS, READY = "/score/", "/contributions/", "/ready/"
HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
GONE = 410


class RunnerApp:
    """The ASGI application of a runner process.

    Parameters
    ----------
    application : Application
        BentoML's own, which answers health checks and runs the life cycle.
    score : callable
        Scores rows by way of BentoML's adaptive batching.
    releases : callable
        Returns what the process has loaded, which exists only after start-up.
    """

    def __init__(
        self,
        application: Application,
        score: Callable[[ReleaseRows], Awaitable[Rows | None]],
        releases: Callable[[], ReleaseHolder[LoadedModel]],
    ) -> None:
        self._application = application
        self._batched_score = score
        self._releases = releases
        self._shutdown = GracefulShutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what the gateway sends and health checks; BentoML's own routes take pickled bodies."""
        method, path = scope.get("method", ""), str(scope.get("path", ""))
        if scope["type"] == "lifespan":
            await self._application(scope, receive, freeze_after_startup(send, self._shutdown.install))
        elif method == "POST" and path.startswith(SCORE):
            self._shutdown.note_request()
            status, body = await self._score(path[len(SCORE) :], await read_body(receive))
            await send_answer(send, status, HEADERS, body)
        elif method == "POST" and path.startswith(CONTRIBUTIONS):
            self._shutdown.note_request()
            status, body = await self._contributions(path[len(CONTRIBUTIONS) :], await read_body(receive))
            await send_answer(send, status, HEADERS, body)
        elif method == "GET" and path.startswith(READY):
            version, releases = path[len(READY) :], self._releases()
            is_loaded = releases.holds(version)
            if not is_loaded:
                releases.ask(version)
            await send_answer(send, 200 if is_loaded else 503, HEADERS, b"")
        elif method in ("GET", "HEAD") and path in HEALTH_PATHS:
            await self._application(scope, receive, send)
        elif scope["type"] == "http":
            await send_answer(send, 404, HEADERS, b"")
        else:
            await send({"type": "websocket.close"})

    async def _score(self, version: str, body: bytes) -> tuple[int, bytes]:
        try:
            rows = ReleaseRows.of(rows_of(body), await self._releases().obtain(version))
            scores = await self._batched_score(rows)
        except ReleaseError:
            return GONE, b""
        except ServiceUnavailable:
            return 503, b""
        except ValueError:  # not whole rows of float32
            return 400, b""
        return 200, np.ascontiguousarray(scores, FLOAT32).tobytes()

    async def _contributions(self, version: str, body: bytes) -> tuple[int, bytes]:
        try:
            rows = rows_of(body)
            model = await self._releases().obtain(version)
        except ReleaseError:
            return GONE, b""
        except ValueError:  # not whole rows of float32
            return 400, b""
        contributions = await anyio.to_thread.run_sync(model.contributions, rows)
        return 200, np.ascontiguousarray(contributions, FLOAT32).tobytes()


async def score_batch(batch: Sequence[ReleaseRows]) -> list[Rows]:
    """Return the scores of each member of a batch, by the model it asks."""
    scores: list[Rows] = []
    for _, members in groupby(batch, key=lambda rows: id(rows.model)):
        scores.extend(_score_together(list(members)))
    return scores


def _score_together(members: list[ReleaseRows]) -> list[Rows]:
    plain = [np.asarray(rows) for rows in members]
    model = members[0].model
    if len(plain) == 1:
        return [model.score(plain[0])]
    ends = list(accumulate(len(rows) for rows in plain))
    return np.split(model.score(np.concatenate(plain)), ends[:-1])
