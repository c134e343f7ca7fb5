"""The little of ASGI this package speaks itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bentos.errors import Headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientGoneError(Exception):
    """The caller hung up before its request was complete."""


class BodyOverLimitError(Exception):
    """The body has more bytes than allowed; the rest was not read."""


async def read_body(receive: Receive, max_bytes: float = float("inf")) -> bytes:
    """Return the body of a request.

    Raises
    ------
    ClientGoneError
        If the caller hung up.
    BodyOverLimitError
        As soon as more than `max_bytes` have arrived.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > max_bytes:
            raise BodyOverLimitError
        return body
    return await _read_on(message, receive, max_bytes)


async def _read_on(message: Message, receive: Receive, max_bytes: float) -> bytes:
    chunks: list[bytes] = []
    length = 0
    while True:
        if message["type"] != "http.request":
            raise ClientGoneError
        chunks.append(message.get("body", b""))
        length += len(chunks[-1])
        if length > max_bytes:
            raise BodyOverLimitError
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()


async def send_answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a complete answer; its length is added to `headers`."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
