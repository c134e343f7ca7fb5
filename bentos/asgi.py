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
    """The caller hung up before its request was complete, or before it was answered."""


async def read_body(receive: Receive) -> bytes:
    """Return the body of a request.

    Raises
    ------
    ClientGoneError
        If the caller hung up.
    """
    chunks: list[bytes] = []
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        chunks.append(message.get("body", b""))
        has_more = message.get("more_body", False)
    return b"".join(chunks)


async def send_answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a complete answer; its length is added to `headers`."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
