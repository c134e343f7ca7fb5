"""The public ASGI application: keys, limits and ``POST /classify``, before BentoML's middleware and routing.

BentoML's own path through tracing, metrics and validation costs more than both models. Only the paths in
`BENTOML_PATHS` and the page's assets reach BentoML's application.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import msgspec

from bentos.asgi import Application, ClientGoneError, Receive, Scope, Send, send_answer
from bentos.classify.explainer import Explain
from bentos.classify.handler import ClassifyHandler
from bentos.compat.uvicorn_limits import has_hung_up
from bentos.errors import DefectError, Headers, MethodError, NotFoundError, NotReadyError, RequestError
from bentos.gateway.auth import ApiKeyAuth
from bentos.gateway.body_reader import BodyReader
from bentos.gateway.request_checks import require_json, wanted_reasons
from bentos.metrics import Metrics
from bentos.settings.load import Settings

CLASSIFY = "/classify"
BENTOML_PATHS = frozenset({"/healthz", "/livez", "/metrics", "/schema.json"})
ASSETS = "/static_content/"
# What the log may name: any other path is the caller's own text.
PATHS = BENTOML_PATHS | {CLASSIFY, "/info", "/docs.json", "/", "/readyz"}
JSON: Headers = [(b"content-type", b"application/json")]
TEXT: Headers = [(b"content-type", b"text/plain; charset=utf-8")]
HTML: Headers = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'self' 'unsafe-inline' data:"),
]
READ_METHODS = ("GET", "HEAD")
_encode = msgspec.json.Encoder().encode


class GatewayBackend(Protocol):
    """What the application needs of the service's instance, which exists only after start-up."""

    handler: ClassifyHandler
    metrics: Metrics
    page: bytes
    openapi: bytes
    info: bytes

    async def __is_ready__(self) -> bool:
        """Say whether requests can be decided now."""


class GatewayApp:
    """The ASGI application of the gateway process.

    Parameters
    ----------
    application : Application
        BentoML's own.
    settings : Settings
        Limits and keys.
    backend : callable
        Returns the service's instance.

    Raises
    ------
    SettingsError
        If keys are to be read from a file that is missing or empty.
    """

    def __init__(
        self, application: Application, settings: Settings, backend: Callable[[], GatewayBackend]
    ) -> None:
        self._application = application
        self._settings = settings
        self._auth = ApiKeyAuth(settings.security)
        self._backend = backend
        self._bodies = BodyReader(settings.request, settings.gateway.retry_after_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run BentoML's life cycle."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        started = perf_counter()
        try:
            self._auth.authorize(scope["path"], headers)
            if scope["path"] == CLASSIFY:
                await self._classify(scope, headers, receive, send)
            else:
                await self._serve(scope, receive, send)
        except RequestError as error:
            await self._refuse(error, headers, send)
            if self._settings.log.access:  # without a key, an unknown path: who it is must be seen too
                _log(scope, error.status, perf_counter() - started, 0)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer everything but /classify; only reading methods, only known paths."""
        path = scope["path"]
        answers: dict[str, Callable[[], tuple[Headers, bytes]]] = {
            "/info": lambda: (JSON, self._backend().info),
            "/docs.json": lambda: (JSON, self._backend().openapi),
            "/": lambda: (HTML, self._backend().page),
            "/readyz": lambda: (TEXT, b"\n"),
        }
        if path not in answers and path not in BENTOML_PATHS and not path.startswith(ASSETS):
            raise NotFoundError
        if scope["method"] not in READ_METHODS:
            raise MethodError(READ_METHODS)
        if path == "/readyz" and not await self._backend().__is_ready__():
            raise NotReadyError("Not ready: a runner does not answer.", self._settings.gateway.retry_after_s)
        if path in answers:
            headers, body = answers[path]()
            await send_answer(send, 200, headers, body)
            return
        if path == "/metrics":
            self._backend().metrics.flush()
        await self._application(scope, receive, send)

    async def _classify(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Answer a request to /classify, and count and log it."""
        if scope["method"] != "POST":
            raise MethodError(("POST",))
        started = perf_counter()
        request = _Request(headers, receive, send)
        try:
            require_json(headers)
            await self._answer(request, wanted_reasons(scope["query_string"]))
        except RequestError as error:
            request.status = error.status
            await self._refuse(error, headers if request.received_at is None else {}, send)
        except ClientGoneError:
            self._backend().metrics.count_refusal("client_gone")
            return
        except Exception:
            # uvicorn logs it; an alert must see it too.
            request.status = 500
            await self._refuse(DefectError("An error of the service; its log says more."), headers, send)
            raise
        finally:
            receive_s = None if request.received_at is None else request.received_at - started
            if request.status:
                self._backend().metrics.count_request(request.status, receive_s)
        if self._settings.log.access:
            _log(scope, request.status, perf_counter() - started, request.transactions)

    async def _answer(self, request: _Request, explain: Explain) -> None:
        body = await self._bodies.read(request.headers, request.receive)
        request.received_at = perf_counter()
        try:
            answer = await self._backend().handler.handle(body, explain)
        finally:
            self._bodies.release(len(body))
        if has_hung_up(request.receive):  # who asks again is counted then
            raise ClientGoneError
        request.status, request.transactions = 200, len(answer.decisions)
        await send_answer(request.send, 200, JSON, answer.body)
        self._backend().metrics.record_answer(
            answer.decisions,
            is_explained=explain is not Explain.NONE,
            total_s=perf_counter() - request.received_at,
            decode_s=answer.decode_s,
            encode_s=answer.encode_s,
        )

    async def _refuse(self, error: RequestError, unread: Mapping[bytes, bytes], send: Send) -> None:
        """Send an error; `unread` are the headers of a request whose body was not read."""
        self._backend().metrics.count_refusal(error.reason)
        headers = [*JSON, *error.headers]
        if b"expect" in unread:
            # A caller that waits for 100 Continue does not send its body now: the next request on the
            # connection would be taken for it.
            headers.append((b"connection", b"close"))
        await send_answer(
            send, error.status, headers, _encode({"error": error.message, "detail": error.detail})
        )


@dataclass(slots=True)
class _Request:
    """A request to /classify, and how far it has come."""

    headers: Mapping[bytes, bytes]
    receive: Receive
    send: Send
    received_at: float | None = None
    status: int = 0
    transactions: int = 0


def _log(scope: Scope, status: int, total_s: float, transactions: int) -> None:
    """Write one line about a request: nothing it brought, not even its query."""
    line: dict[str, Any] = {
        "event": "request",
        "path": scope["path"] if scope["path"] in PATHS else "unknown",
        "status": status,
        "duration_ms": round(total_s * 1000, 3),
        "transactions": transactions,
        "client": (scope.get("client") or ("",))[0],
    }
    sys.stdout.write(_encode(line).decode() + "\n")
    sys.stdout.flush()
