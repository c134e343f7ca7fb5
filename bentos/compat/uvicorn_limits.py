"""Bounds what a connection may cost before its request reaches the application.

uvicorn (0.54) with httptools limits neither the size of a request's head nor the time it takes, never closes
a connection that sends nothing, drops the body of a request that offers ``Upgrade: h2c`` (as Java's client
and ``curl --http2`` do), and answers what is not HTTP in plain text. Its ``limit_concurrency`` refuses
requests but closes no connection, and it keeps a connection for as long as its caller likes. Where it refuses
a body unread it closes at once, and the kernel's reset may reach the caller before the answer does. It drops
what is sent to a caller who has gone and says nothing, where ASGI 2.4 wants an OSError.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
import msgspec
import uvicorn.config
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bentos.asgi import Receive
from bentos.compat.assumptions import require
from bentos.compat.uvicorn_single_write import CorkedProtocol

SWEEP_INTERVAL_S = 1.0
# Time that a caller who is refused while it still sends has to read why.
LINGER_S = 2.0
# A connection ends between this share of its greatest age and the whole: not all at the same moment.
LEAST_SHARE = 0.8
UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings"})
USED = (
    "send_400_response",
    "on_headers_complete",
    "on_response_complete",
)


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection, and all of them together, may cost.

    Parameters
    ----------
    max_connections : int
        Beyond it the connection that has waited longest for a head is closed, or the new one is refused.
    max_header_bytes : int
        Largest head of a request.
    header_timeout_s : float
        Time a head may take to arrive, and an idle connection to begin one.
    max_age_s : float
        A connection older than this ends with its next answer, so that its caller may meet another replica.
    retry_after_s : int
        For callers that are refused.
    on_refusal : callable
        Called with the reason of each refusal.
    """

    max_connections: int
    max_header_bytes: int
    header_timeout_s: float
    max_age_s: float
    retry_after_s: int
    on_refusal: Callable[[str], None]


class HeadDeadlines:
    """One timer for all connections that wait for the head of a request, their first or the next.

    uvicorn sets and cancels a timer for every answer: 3 % of what a small one costs.
    """

    def __init__(self) -> None:
        self._waiting: dict[LimitedProtocol, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, protocol: LimitedProtocol, limit_s: float) -> None:
        """Give `protocol` `limit_s` seconds from now on."""
        self._waiting[protocol] = protocol.loop.time() + limit_s
        if self._timer is None:
            self._timer = protocol.loop.call_later(min(SWEEP_INTERVAL_S, limit_s), self._sweep, protocol.loop)

    def stop(self, protocol: LimitedProtocol) -> None:
        """Forget `protocol`: its head has arrived, or it has gone."""
        self._waiting.pop(protocol, None)

    def oldest(self) -> LimitedProtocol | None:
        """Return the connection that has waited longest, of those whose callers have read their answers."""
        return next((protocol for protocol in self._waiting if not protocol.unsent_bytes), None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for protocol in [protocol for protocol, ends in self._waiting.items() if ends <= now]:
            protocol.give_up_waiting()
        if self._waiting:
            self._timer = loop.call_later(SWEEP_INTERVAL_S, self._sweep, loop)


class LingeringTransport:
    """A transport that, closed while its caller still sends, says so and reads on for `LINGER_S`.

    Parameters
    ----------
    transport : asyncio.Transport
        The transport that is closed; everything but closing is its own.
    read_on : callable
        Says whether the caller is in the middle of a request, and if so has its bytes read.
    """

    def __init__(self, transport: asyncio.Transport, read_on: Callable[[], bool]) -> None:
        self._transport = transport
        self._read_on = read_on
        self._is_lingering = False
        self.write = transport.write  # called for every answer; `__getattr__` is slow

    def close(self) -> None:
        """Close now, or end what is written and close later; TLS (asyncio's) cannot end one side alone."""
        if self._is_lingering or self._transport.is_closing():
            return
        if self._transport.can_write_eof() and self._read_on():
            self._is_lingering = True
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)
        else:
            self._transport.close()

    def is_closing(self) -> bool:
        """Say whether nothing can be written any more."""
        return self._is_lingering or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the transport has
        return getattr(self._transport, name)


class LimitedProtocol(CorkedProtocol):
    """uvicorn's protocol within `limits`."""

    limits: ConnectionLimits
    deadlines = HeadDeadlines()

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # uvicorn's
        super().__init__(*arguments, **options)
        self._is_in_head = False
        self._head_bytes = 0
        self._chunk_bytes = 0
        self._is_upgrading = False
        self._is_refused = False
        self._unsent = 0
        self._ends_at = 0.0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(LingeringTransport(transport, self._read_on))  # type: ignore[arg-type]
        share = random.uniform(LEAST_SHARE, 1.0)  # noqa: S311  # nothing to guess
        self._ends_at = self.loop.time() + share * self.limits.max_age_s
        if len(self.connections) > self.limits.max_connections:
            oldest = self.deadlines.oldest()
            if oldest is None:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", "Too many connections.")
                return
            oldest.give_up_waiting()
        self.deadlines.start(self, self.limits.header_timeout_s)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.deadlines.stop(self)
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.transport.is_closing():
            return
        self._chunk_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._is_in_head:
            if self._head_bytes == 0:  # it begins with these bytes
                self.deadlines.start(self, self.limits.header_timeout_s)
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.max_header_bytes:
                self._refuse_head()
                return

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._is_upgrading = False
        self._head_bytes = 0

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self.deadlines.stop(self)
        if self.parser.should_upgrade():
            self._is_upgrading = True  # the parser stops here and raises; see `_ignore_upgrade`
            return
        # What has come is seldom longer, so that there is seldom need to add up.
        if self._head_bytes + self._chunk_bytes > self.limits.max_header_bytes and self._is_head_too_large():
            self._refuse_head()
            return
        super().on_headers_complete()
        if self.cycle is not None and self.loop.time() >= self._ends_at:
            self.cycle.keep_alive = False  # its answer will say `Connection: close`

    @override
    def on_body(self, body: bytes) -> None:
        if self.cycle is not None and not self._is_refused:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if self.cycle is not None and not self._is_upgrading and not self._is_refused:
            super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        if not self._is_in_head:
            self.deadlines.start(self, self.timeout_keep_alive)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the request again without its offer, as RFC 9110 (7.8) allows, then what follows its head."""
        if self.parser.get_method() == b"CONNECT":
            self.send_400_response("This is no proxy.")
            return
        kept = [
            (name, value)
            for name, value in self.headers
            if name not in UPGRADE_HEADERS and not (name == b"connection" and b"upgrade" in value.lower())
        ]
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b" % header for header in kept]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)

    def _read_on(self) -> bool:
        is_sending = self._is_in_head or (self.cycle is not None and self.cycle.more_body)
        if is_sending:
            self.flow.resume_reading()  # `data_received` drops what comes once the transport is closing
        return bool(is_sending)

    def give_up_waiting(self) -> None:
        """Close a connection whose head has not arrived in time; cut one whose caller reads no answer."""
        self.deadlines.stop(self)
        unsent = self.unsent_bytes
        if self._is_in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "slow_headers", "The headers did not arrive in time.")
        elif unsent == 0:
            self.transport.close()
        elif unsent == self._unsent:
            self.transport.abort()
        else:
            self._unsent = unsent
            self.deadlines.start(self, self.timeout_keep_alive)

    @property
    def unsent_bytes(self) -> int:
        """What was answered and the caller has not read yet."""
        return int(self.transport.get_write_buffer_size())

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", msg)

    def _is_head_too_large(self) -> bool:
        length = sum(len(name) + len(value) for name, value in self.headers)
        return length > self.limits.max_header_bytes

    def _refuse_head(self) -> None:
        text = f"The headers are over {self.limits.max_header_bytes} bytes."
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", text)

    def _refuse(self, status: HTTPStatus, reason: str, text: str) -> None:
        """Answer with an error and close; where an earlier request is still being answered, only close."""
        self._is_refused = True
        self.limits.on_refusal(reason)
        self.deadlines.stop(self)
        if self.cycle is None or self.cycle.response_complete:
            body = msgspec.json.encode({"error": text, "detail": []})
            lines = [
                b"HTTP/1.1 %d %b" % (status, status.phrase.encode()),
                b"content-type: application/json",
                b"content-length: %d" % len(body),
                b"connection: close",
            ]
            if status is HTTPStatus.SERVICE_UNAVAILABLE:
                lines.append(b"retry-after: %d" % self.limits.retry_after_s)
            self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()


def has_hung_up(receive: Receive) -> bool:
    """Say whether the caller of the request that uvicorn gives `receive` for has gone."""
    return getattr(getattr(receive, "__self__", None), "disconnected", False) is True


def check_assumptions() -> None:
    """Return if uvicorn's protocol has the methods that `LimitedProtocol` overrides.

    Raises
    ------
    BrokenAssumptionError
        If it is built otherwise.
    """
    holds = all(callable(getattr(HttpToolsProtocol, name, None)) for name in USED)
    require("uvicorn", f"its protocol for httptools has the methods {', '.join(USED)}", holds)
    is_kept = "keep_alive" in inspect.signature(RequestResponseCycle).parameters
    require("uvicorn", "`RequestResponseCycle.keep_alive` says whether a connection is kept", is_kept)
    is_told = "disconnected" in RequestResponseCycle.__init__.__code__.co_names
    require("uvicorn", "`RequestResponseCycle.disconnected` says whether the caller has gone", is_told)


def install(limits: ConnectionLimits) -> None:
    """Make `LimitedProtocol` the one that uvicorn chooses by itself in this process."""
    LimitedProtocol.limits = limits
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{LimitedProtocol.__name__}"
