"""uvicorn's HTTP protocol, sending head and body of an answer in one write.

uvicorn writes them apart: two system calls here, two wake-ups at the caller, a tenth of
what a small answer costs.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_ENDS = b"\r\n\r\n"
# An interim answer such as 100 Continue has no body to wait for.
FINAL_HEAD_STARTS = tuple(b"HTTP/1.1 %d" % hundreds for hundreds in (2, 3, 4, 5))


class Cork:
    """A transport that keeps an answer's head until its body comes, or this turn of the loop ends.

    Parameters
    ----------
    transport : asyncio.Transport
        Where it goes; everything but writing is its own.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        """Write `data`, after the head that was kept; keep it if it is a head."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(HEAD_ENDS) and data.startswith(FINAL_HEAD_STARTS):
            self._head = data
            self._loop.call_soon(self._flush)  # an answer to HEAD has no body, a slow body must not hold it
            return
        self._send(data)

    def close(self) -> None:
        """Write what was kept, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._send(head)

    def _send(self, data: bytes) -> None:
        """Write what somebody may still read: uvicorn tells only the last of pipelined ones."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the transport has
        return getattr(self._transport, name)


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a corked transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        super().connection_made(cast("asyncio.Transport", Cork(transport)))


def install() -> None:
    """Make it what uvicorn takes by itself in this process."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{CorkedProtocol.__name__}"
