"""The public ASGI application: keys, limits and ``POST /classify``, before BentoML's middleware and routing.

BentoML's own path through tracing, metrics and validation costs more than both models. Only the paths in
`BENTOML_PATHS` and the page's assets reach BentoML's application.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec

from bentos.asgi import (
    Application,
    BodyOverLimitError,
    ClientGoneError,
    Receive,
    Scope,
    Send,
    read_body,
    send_answer,
)
from bentos.classify.handler import Answer, ClassifyHandler
from bentos.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    Headers,
    MalformedError,
    MediaTypeError,
    MethodError,
    NotFoundError,
    OverloadedError,
    RequestError,
)
from bentos.gateway.auth import ApiKeyAuth
from bentos.gateway.body_timeout import BodyTimeout
from bentos.metrics import Metrics
from bentos.settings.load import Settings

CLASSIFY = "/classify"
BENTOML_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/metrics", "/schema.json"})
ASSETS = "/static_content/"
JSON: Headers = [(b"content-type", b"application/json")]
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
    OSError, ValueError
        If keys are to be read from a file that is missing or empty.
    """

    def __init__(
        self, application: Application, settings: Settings, backend: Callable[[], GatewayBackend]
    ) -> None:
        self._application = application
        self._settings = settings
        self._auth = ApiKeyAuth(settings.security)
        self._backend = backend
        self._body_timeout = BodyTimeout(settings.request.body_timeout_s)
        self._requests = 0
        self._buffered_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run BentoML's life cycle."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            self._auth.authorize(scope["path"], headers)
            if scope["path"] == CLASSIFY:
                await self._classify(scope, headers, receive, send)
            else:
                await self._serve(scope, receive, send)
        except RequestError as error:
            self._backend().metrics.count_refusal(error.reason)
            await _send_error(send, error)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer everything but /classify; only reading methods, only known paths."""
        path = scope["path"]
        answers: dict[str, Callable[[], tuple[Headers, bytes]]] = {
            "/info": lambda: (JSON, self._backend().info),
            "/docs.json": lambda: (JSON, self._backend().openapi),
            "/": lambda: (HTML, self._backend().page),
        }
        if path not in answers and path not in BENTOML_PATHS and not path.startswith(ASSETS):
            raise NotFoundError
        if scope["method"] not in READ_METHODS:
            raise MethodError(READ_METHODS)
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
        started = perf_counter()
        if scope["method"] != "POST":
            raise MethodError(("POST",))
        received = started
        answer = Answer(b"", 0, 0.0, 0.0)
        try:
            _require_json(headers)
            wants_reasons = _wants_reasons(scope["query_string"])
            body = await self._receive(headers, receive)
            received = perf_counter()
            answer = await self._backend().handler.handle(body, wants_reasons)
            status = 200
            await send_answer(send, status, JSON, answer.body)
        except RequestError as error:
            status = error.status
            self._backend().metrics.count_refusal(error.reason)
            await _send_error(send, error)
        except ClientGoneError:
            self._backend().metrics.count_refusal("client_gone")
            return
        except Exception:
            # uvicorn answers 500 and logs it; an alert must see it too.
            self._backend().metrics.count_refusal("defect")
            self._backend().metrics.record_answer(500, perf_counter() - started, received - started, 0.0, 0.0)
            raise
        total = perf_counter() - started
        self._backend().metrics.record_answer(
            status, total, received - started, answer.decode_s, answer.encode_s
        )
        if self._settings.log.access:
            _log(scope, status, total, answer.transactions)

    async def _receive(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the body, within the limits of size, time and memory."""
        limits = self._settings.request
        # A body of unannounced length counts as the longest.
        expected = int(headers.get(b"content-length", limits.max_body_bytes))
        if expected > limits.max_body_bytes and b"content-length" in headers:
            raise BodyTooLargeError(f"The body is over {limits.max_body_bytes} bytes.")
        if self._requests and self._buffered_bytes + expected > limits.max_buffered_bytes:
            raise OverloadedError("Too many bytes are waiting.", self._settings.gateway.retry_after_s)
        self._requests += 1
        self._buffered_bytes += expected
        try:
            return await self._body_timeout.apply(read_body(receive, limits.max_body_bytes))
        except TimeoutError:
            raise BodyTimeoutError("The body did not arrive in time.") from None
        except BodyOverLimitError:
            raise BodyTooLargeError(f"The body is over {limits.max_body_bytes} bytes.") from None
        finally:
            self._requests -= 1
            self._buffered_bytes -= expected


def _require_json(headers: Mapping[bytes, bytes]) -> None:
    """Refuse every declared type but JSON in UTF-8, and every encoding."""
    declared = headers.get(b"content-type", b"")
    if declared == b"application/json" and b"content-encoding" not in headers:
        return
    name, _, parameters = declared.partition(b";")
    if name.strip().lower() != b"application/json":
        raise MediaTypeError("The body must be application/json.")
    charset = parameters.strip().lower().replace(b'"', b"")
    if charset.startswith(b"charset=") and charset[8:] not in (b"utf-8", b"utf8", b"us-ascii"):
        raise MediaTypeError("The body must be UTF-8.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise MediaTypeError("The body must not be compressed.")


def _wants_reasons(query: bytes) -> bool:
    if not query:
        return False
    answers = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("explain", ["false"])
    if len(answers) == 1 and answers[0] in ("true", "false"):
        return answers[0] == "true"
    raise MalformedError(
        "explain is true or false.",
        [{"loc": ["query", "explain"], "type": "bool_parsing", "msg": "Input should be true or false"}],
        reason="query",
    )


async def _send_error(send: Send, error: RequestError) -> None:
    body = _encode({"error": error.message, "detail": error.detail})
    await send_answer(send, error.status, [*JSON, *error.headers], body)


def _log(scope: Scope, status: int, total_s: float, transactions: int) -> None:
    """Write one line about a request: nothing it brought, not even its query."""
    line: dict[str, Any] = {
        "event": "request",
        "path": scope["path"],
        "status": status,
        "duration_ms": round(total_s * 1000, 3),
        "transactions": transactions,
        "client": (scope.get("client") or ("",))[0],
    }
    sys.stdout.write(_encode(line).decode() + "\n")
    sys.stdout.flush()
