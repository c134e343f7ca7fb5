"""Raw HTTP/1.1 to a runner over its unix socket: pooled connections, one deadline, no retries but one.

BentoML's own client costs the gateway 400 µs a call and closes its session every 100 requests with
others in flight. This one speaks to the same endpoint of the same runner.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

import httptools
import numpy as np

from bentos.errors import RunnerUnavailable
from bentos.wire import FLOAT32, MEDIA_TYPE, Rows

HTTP_OK = 200


class Scorer(Protocol):
    """What the gateway needs of a runner."""

    async def score(self, rows: bytes) -> Rows:
        """Return one score per row of `rows`."""

    async def contributions(self, rows: bytes) -> Rows:
        """Return one row of contributions per row of `rows`."""


class RunnerClient:
    """A runner in another process.

    Parameters
    ----------
    name : str
        How messages and metrics call it.
    url : str
        ``file:///path/of/socket`` or ``tcp://host:port``, as BentoML hands it out.
    retry_after_s : int
        What a refused caller is told.
    """

    def __init__(self, name: str, url: str, retry_after_s: int = 1) -> None:
        self.name = name
        self._url = urlsplit(url)
        self._retry_after_s = retry_after_s
        self._idle: list[_Connection] = []

    async def score(self, rows: bytes) -> Rows:
        """Return one score per row; rows are float32 features, row after row.

        Raises
        ------
        RunnerUnavailable
            If the runner does not answer as it should.
        """
        return np.frombuffer(await self._post(b"/score", rows), FLOAT32)

    async def contributions(self, rows: bytes) -> Rows:
        """Return one row of contributions per row; raises as `score` does."""
        answer = np.frombuffer(await self._post(b"/contributions", rows), FLOAT32)
        return answer.reshape(-1, 30)

    async def is_ready(self, timeout_s: float) -> bool:
        """Say whether the runner answers within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._exchange(b"GET /readyz HTTP/1.1\r\nHost: runner\r\n\r\n", b"")
        except (RunnerUnavailable, TimeoutError):
            return False
        return True

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    async def _post(self, path: bytes, body: bytes) -> bytes:
        head = b"POST %b HTTP/1.1\r\nHost: runner\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (
            path,
            MEDIA_TYPE.encode(),
            len(body),
        )
        return await self._exchange(head, body)

    async def _exchange(self, head: bytes, body: bytes) -> bytes:
        while self._idle:
            # The runner closes what idles for 5 s, perhaps just now: asking again elsewhere is safe, a
            # score changes nothing.
            try:
                return await self._ask(self._idle.pop(), head, body)
            except ConnectionError:
                continue
        try:
            return await self._ask(await self._connect(), head, body)
        except OSError:
            raise self._unavailable() from None

    async def _ask(self, connection: _Connection, head: bytes, body: bytes) -> bytes:
        try:
            status, answer = await connection.ask(head, body)
        except BaseException:
            connection.close()  # half an answer may still be on its way
            raise
        if connection.is_open:
            self._idle.append(connection)
        if status != HTTP_OK:
            raise self._unavailable()
        return answer

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._url.scheme == "file":
            made = await loop.create_unix_connection(_Connection, unquote(self._url.path))
        else:
            made = await loop.create_connection(_Connection, self._url.hostname, self._url.port)
        return made[1]

    def _unavailable(self) -> RunnerUnavailable:
        return RunnerUnavailable(f"The {self.name} runner is not available.", self._retry_after_s)


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._chunks: list[bytes] = []
        self.is_open = True

    async def ask(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        if not self.is_open or self._transport is None:
            raise ConnectionError
        self._answer = asyncio.get_running_loop().create_future()
        self._chunks = []
        self._transport.write(head + body)
        return await self._answer

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._fail()

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        self.is_open = self.is_open and self._parser.should_keep_alive()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._chunks)))

    def _fail(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())


class LocalRunner:
    """A runner in this process, as under ``bentoml serve --development``.

    Parameters
    ----------
    instance : object
        The runner service's instance.
    """

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    async def score(self, rows: bytes) -> Rows:
        """Return one score per row."""
        scores: Rows = await self._instance.score(_rows(rows))
        return scores

    async def contributions(self, rows: bytes) -> Rows:
        """Return one row of contributions per row."""
        contributions: Rows = await self._instance.contributions(_rows(rows))
        return contributions

    async def is_ready(self, timeout_s: float) -> bool:  # noqa: ARG002
        """Say yes: it is part of this process."""
        return True

    def close(self) -> None:
        """Do nothing: BentoML closes it."""


def _rows(rows: bytes) -> Rows:
    return np.frombuffer(rows, FLOAT32).reshape(-1, 30)
