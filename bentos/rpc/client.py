"""Raw HTTP/1.1 to a runner over its unix socket: pooled connections, one deadline, at most one retry.

BentoML's own client (1.4.40) costs the gateway 400 µs a call and closes its session every 100 requests, also
while others are in flight. This one calls the same endpoint of the same runner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast
from urllib.parse import unquote, urlsplit

import httptools
import numpy as np
from typing_extensions import override

from bentos.errors import RunnerUnavailableError, ScoringFailedError
from bentos.rows import Rows
from bentos.rpc.codec import FLOAT32, MEDIA_TYPE, contributions_of
from bentos.rpc.scorer import Scorer

HTTP_OK, HTTP_GONE, HTTP_UNAVAILABLE = 200, 410, 503
HEAD = b"POST %b%b HTTP/1.1\r\nHost: runner\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
READY = b"GET /ready/%b HTTP/1.1\r\nHost: runner\r\n\r\n"
PROBE_TIMEOUT_S = 1.0
PROBE_INTERVAL_S = 0.1
# A runner closes a connection that idles for 5 s. One that is lost earlier says that the process may have
# died; the heartbeat keeps one in use, so that this is noticed at once.
HEARTBEAT_INTERVAL_S = 1.0
RUNNER_KEEP_ALIVE_S = 4.0
CHECK_TIMEOUT_S = 0.1


class RunnerClient(Scorer):
    """A runner in another process.

    After a failure every call fails at once until a probe has been answered: callers get a 503 with
    ``Retry-After`` instead of waiting for a process that is being started again.

    Parameters
    ----------
    name : str
        Its name in messages and metrics.
    url : str
        ``file:///path/of/socket`` or ``tcp://host:port``, as BentoML gives it.
    served : callable
        Returns the version that is served now: what a runner must have loaded to count as answering again.
    on_change : callable, optional
        Called with ``name, True`` when the runner answers again, and with ``name, False`` when it stops.
    """

    def __init__(
        self,
        name: str,
        url: str,
        served: Callable[[], str],
        on_change: Callable[[str, bool], None] = lambda name, is_up: None,
    ) -> None:
        self.name = name
        self._url = urlsplit(url)
        self._served = served
        self._on_change = on_change
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._heartbeat: asyncio.Task[None] | None = None
        self._check: asyncio.Task[None] | None = None
        self._is_closed = False
        self._probe: asyncio.Task[None] | None = None

    @override
    async def score(self, version: str, rows: bytes) -> Rows:
        return np.frombuffer(await self._post(b"/score/", version, rows), FLOAT32)

    @override
    async def contributions(self, version: str, rows: bytes) -> Rows:
        return contributions_of(await self._post(b"/contributions/", version, rows, may_be_slow=True))

    @override
    async def is_ready(self, version: str, timeout_s: float) -> bool:
        self._start_heartbeat()
        if self._probe not in (None, asyncio.current_task()):
            return False  # calls fail until the probe has been answered
        try:
            async with asyncio.timeout(timeout_s):
                status, _ = await self._exchange(READY % version.encode(), b"")
        except (OSError, TimeoutError):
            return False
        return status == HTTP_OK

    @override
    def close(self) -> None:
        self._is_closed = True
        for task in (self._probe, self._heartbeat, self._check):
            if task is not None:
                task.cancel()
        while self._idle:
            self._idle.pop().close()

    async def _post(self, path: bytes, version: str, body: bytes, may_be_slow: bool = False) -> bytes:
        self._start_heartbeat()
        if self._probe is not None:
            raise RunnerUnavailableError(f"The {self.name} runner is being started again.")
        head = HEAD % (path, version.encode(), MEDIA_TYPE.encode(), len(body))
        try:
            status, answer = await self._exchange(head, body)
        except (OSError, asyncio.CancelledError) as error:
            # Cancelled means over the deadline: slow is treated as dead until it answers a probe. Reasons may
            # be slow; they say nothing about scores.
            if not (may_be_slow and isinstance(error, asyncio.CancelledError)):
                self._start_probing()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise RunnerUnavailableError(f"The {self.name} runner is not available.") from None
        if status == HTTP_UNAVAILABLE:
            raise RunnerUnavailableError(f"The {self.name} runner is overloaded.")
        if status == HTTP_GONE:
            raise RunnerUnavailableError(f"The {self.name} runner cannot load the release.")
        if status != HTTP_OK:
            raise ScoringFailedError(f"The {self.name} runner failed.")
        return answer

    def _start_heartbeat(self) -> None:
        if self._heartbeat is None and not self._is_closed:
            self._heartbeat = asyncio.get_running_loop().create_task(self._beat())

    def _start_probing(self) -> None:
        if self._probe is None:
            self._on_change(self.name, False)
            self._probe = asyncio.get_running_loop().create_task(self._probe_until_ready())
            for connection in list(self._busy):
                connection.fail()  # what waits for a dead process would wait until its deadline

    def _on_lost(self, connection: _Connection) -> None:
        if self._is_closed:
            return
        loop = asyncio.get_running_loop()
        is_early = loop.time() - connection.used_at < RUNNER_KEEP_ALIVE_S
        if is_early and self._probe is None and (self._check is None or self._check.done()):
            self._check = loop.create_task(self._check_alive())

    async def _check_alive(self) -> None:
        connection = None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                connection = await self._connect()
                await connection.exchange(READY % self._served().encode(), b"")
        except (OSError, TimeoutError):
            self._start_probing()
        finally:
            if connection is not None:
                connection.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)
            if self._probe is None:
                await self.is_ready(self._served(), PROBE_TIMEOUT_S)

    async def _probe_until_ready(self) -> None:
        while not await self.is_ready(self._served(), PROBE_TIMEOUT_S):
            await asyncio.sleep(PROBE_INTERVAL_S)
        self._probe = None
        self._on_change(self.name, True)

    async def _exchange(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        while self._idle:
            # The runner closes a connection that idles for 5 s, perhaps just now. A score changes nothing, so
            # sending it again over another connection is safe.
            try:
                return await self._send(self._idle.pop(), head, body)
            except ConnectionError:
                if self._probe not in (None, asyncio.current_task()):
                    raise
        return await self._send(await self._connect(), head, body)

    async def _send(self, connection: _Connection, head: bytes, body: bytes) -> tuple[int, bytes]:
        self._busy.add(connection)
        try:
            answer = await connection.exchange(head, body)
        except BaseException:
            connection.close()  # half an answer may still be on its way
            raise
        finally:
            self._busy.discard(connection)
        if self._is_closed:
            connection.close()
        elif connection.is_open:
            self._idle.append(connection)
        return answer

    def _new_connection(self) -> _Connection:
        return _Connection(self._on_lost)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._url.scheme == "file":
            made = await loop.create_unix_connection(self._new_connection, unquote(self._url.path))
        else:
            host, port = str(self._url.hostname), int(self._url.port or 80)
            made = await loop.create_connection(self._new_connection, host, port)
        return made[1]


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time; `on_lost` hears when the other side ends it."""

    def __init__(self, on_lost: Callable[[_Connection], None]) -> None:
        self._on_lost = on_lost
        self.used_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._chunks: list[bytes] = []
        self.is_open = True

    async def exchange(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        if not self.is_open or self._transport is None:
            raise ConnectionError
        self._answer = asyncio.get_running_loop().create_future()
        self._chunks = []
        self._transport.write(head + body)
        self.used_at = asyncio.get_running_loop().time()
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
            self.fail()
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        was_open, self.is_open = self.is_open, False
        self.fail()
        if was_open:
            self._on_lost(self)

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        self.is_open = self.is_open and self._parser.should_keep_alive()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._chunks)))

    def fail(self) -> None:
        """Have the exchange under way fail."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())
