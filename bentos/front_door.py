"""``POST /classify`` on plain ASGI, before BentoML's own middleware and routing, which cost more than the models.

Everything else passes through to BentoML's application untouched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from bentos.batching import Batcher
from bentos.decoding import Decoder
from bentos.errors import (
    BodyTimeout,
    BodyTooLarge,
    MalformedRequest,
    RequestError,
    UnsupportedMedia,
)
from bentos.settings import RequestSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CLASSIFY_PATH = "/classify"
INFO_PATH = "/info"
JSON_HEADER = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


class Gone(Exception):
    """The caller hung up before the body was complete."""


class FrontDoor:
    """The ASGI application of the gateway process.

    Parameters
    ----------
    application : Application
        BentoML's own.
    settings : RequestSettings
        What a request may be.
    decoder : Decoder
        Body to transactions.
    batcher : callable
        Returns the batcher; the service's instance exists only after start-up.
    info : callable
        Returns what ``GET /info`` answers.
    """

    def __init__(
        self,
        application: Application,
        settings: RequestSettings,
        decoder: Decoder,
        batcher: Callable[[], Batcher],
        info: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._application = application
        self._settings = settings
        self._decoder = decoder
        self._batcher = batcher
        self._info = info

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer /classify and /info here, hand everything else on."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path == CLASSIFY_PATH and scope["method"] == "POST":
            await self._answer(scope, receive, send)
        elif path == INFO_PATH and scope["method"] in ("GET", "HEAD"):
            await _respond(send, 200, [], _encode(self._info()))
        else:
            await self._application(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, headers, body = 200, [], await self._classify(scope, receive)
        except RequestError as error:
            status, headers = error.status, error.headers
            body = _encode({"error": error.message, "detail": error.detail})
        except Gone:
            return
        await _respond(send, status, headers, body)

    async def _classify(self, scope: Scope, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        _require_json(headers.get(b"content-type", b""))
        wants_reasons = _wants_reasons(scope["query_string"])
        body = await self._read(headers, receive)
        transactions, is_single = self._decoder.decode(body)
        decisions = await self._batcher().submit(transactions)
        return _encode(decisions[0] if is_single else decisions)

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._settings.max_body_bytes
        if int(headers.get(b"content-length", b"0")) > limit:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                return await self._gather(receive, limit)
        except TimeoutError:
            raise BodyTimeout("The body did not arrive in time.") from None

    async def _gather(self, receive: Receive, limit: int) -> bytes:
        chunks: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            chunk = message.get("body", b"")
            if not chunks and not message.get("more_body", False):
                return chunk if len(chunk) <= limit else self._raise_too_large()
            length += len(chunk)
            if length > limit:
                raise self._too_large()
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _raise_too_large(self) -> bytes:
        raise self._too_large()

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is over {self._settings.max_body_bytes} bytes.")


def _require_json(media_type: bytes) -> None:
    """Refuse every declared type but JSON; parameters such as a charset of UTF-8 are fine."""
    name, _, parameters = media_type.partition(b";")
    if name.strip().lower() != b"application/json":
        raise UnsupportedMedia("The body must be application/json.")
    charset = parameters.strip().lower().replace(b'"', b"")
    if charset.startswith(b"charset=") and charset[8:] not in (b"utf-8", b"utf8", b"us-ascii"):
        raise UnsupportedMedia("The body must be UTF-8.")


def _wants_reasons(query: bytes) -> bool:
    if not query:
        return False
    answers = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("explain", ["false"])
    if len(answers) == 1 and answers[0] in ("true", "false"):
        return answers[0] == "true"
    raise MalformedRequest(
        "explain is true or false.",
        [{"loc": ["query", "explain"], "type": "bool_parsing", "msg": "Input should be true or false"}],
        reason="query",
    )


async def _respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [JSON_HEADER, length, *headers]})
    await send({"type": "http.response.body", "body": body})
