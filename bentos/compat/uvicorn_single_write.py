"""Makes uvicorn send head and body of an answer in one write.

uvicorn (0.54) writes them apart: two system calls here, two wake-ups at the caller, a tenth of what a small
answer costs.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bentos.compat.assumptions import require

HEAD_ENDS = b"\r\n\r\n"
# An interim answer such as 100 Continue has no body to wait for.
FINAL_HEAD_STARTS = tuple(b"HTTP/1.1 %d" % hundreds for hundreds in (2, 3, 4, 5))


class CorkedTransport:
    """A transport that holds back an answer's head until its body comes, or this turn of the loop ends.

    Parameters
    ----------
    transport : asyncio.Transport
        The transport that is written to; everything but writing is its own.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._loop = asyncio.get_running_loop()
        self.is_closing = transport.is_closing  # asked several times a request; `__getattr__` is slow

    def write(self, data: bytes) -> None:
        """Write `data` after the head that was held back; hold `data` back if it is a head."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(HEAD_ENDS) and data.startswith(FINAL_HEAD_STARTS):
            self._head = data
            self._loop.call_soon(self._flush)  # an answer to HEAD has no body, a slow body must not hold it
            return
        self._send(data)

    def close(self) -> None:
        """Write what was held back, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._send(head)

    def _send(self, data: bytes) -> None:
        """Write unless the caller has gone: uvicorn notices that only for the last of pipelined requests."""
        if not self.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the transport has
        return getattr(self._transport, name)


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a corked transport."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # uvicorn's
        super().__init__(*arguments, **options)
        # uvicorn formats a line for every answer, also where nobody reads it.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        super().connection_made(cast("asyncio.Transport", CorkedTransport(transport)))


def check_assumptions() -> None:
    """Return if uvicorn chooses its protocol as `install` takes for granted.

    Raises
    ------
    BrokenAssumptionError
        If it chooses otherwise.
    """
    table = getattr(uvicorn.config, "HTTP_PROTOCOLS", None)
    holds = isinstance(table, dict) and isinstance(table.get("auto"), str)
    require("uvicorn", "`uvicorn.config.HTTP_PROTOCOLS` names the protocol class for `auto`", holds)


def install() -> None:
    """Make `CorkedProtocol` the one that uvicorn chooses by itself in this process."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{CorkedProtocol.__name__}"
