"""What a connection may cost, on a real uvicorn and raw sockets."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from bentos.asgi import read_body, send_answer
from bentos.compat.uvicorn_limits import ConnectionLimits, HeadDeadlines, LimitedProtocol, has_hung_up
from tests.serving_fixtures import free_tcp_port
from tests.unit.bentos.compat.running_uvicorn import running_uvicorn

UPGRADES = (
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "connection: keep-alive\r\nconnection: Upgrade\r\nupgrade: TLS/1.0\r\n",
)


abandoned: list[str] = []


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer the body, or the first header that speaks of an upgrade; on some paths do something else."""
    if scope["path"] == "/slow":
        await read_body(receive)
        async with asyncio.timeout(60):
            while not has_hung_up(receive):
                await asyncio.sleep(0.01)
        abandoned.append(scope["path"])
        return
    if scope["path"] == "/unread":
        await send_answer(send, 413, [(b"connection", b"close")], b"refused")
        return
    body = await read_body(receive)
    offered = [name for name, _ in scope["headers"] if name in (b"upgrade", b"http2-settings")]
    await send_answer(send, 200, [], b"".join(offered) or body)


class Server:
    """A running server and what it refused."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.refused: Counter[str] = Counter()

    async def exchange(self, *pieces: str | bytes, pause_s: float = 0.0) -> bytes:
        """Send the pieces over one connection and return all that comes back until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for piece in pieces:
            writer.write(piece.encode() if isinstance(piece, str) else piece)
            await asyncio.sleep(pause_s)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        except ConnectionError:
            return b""  # it was closed while we were still sending
        finally:
            writer.close()


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Server]:
    server = Server(free_tcp_port())

    class Protocol(LimitedProtocol):
        deadlines = HeadDeadlines()

    Protocol.limits = ConnectionLimits(
        **{
            "max_connections": 20,
            "max_header_bytes": 4096,
            "header_timeout_s": 0.4,
            "max_age_s": 60.0,
            **limits,
        },
        retry_after_s=3,
        on_refusal=lambda reason: server.refused.update([reason]),
    )
    config = uvicorn.Config(
        echo, http=Protocol, port=server.port, log_level="critical", lifespan="off", timeout_keep_alive=1
    )
    async with running_uvicorn(config):
        yield server


def post(body: str, *heads: str) -> str:
    return f"POST / HTTP/1.1\r\nHost: x\r\n{''.join(heads)}Content-Length: {len(body)}\r\n\r\n{body}"


CLOSE = "Connection: close\r\n"


async def test_offers_to_upgrade_are_ignored_and_the_body_is_read() -> None:
    async with serving() as server:
        for upgrade in UPGRADES:
            whole = post("first", upgrade) + post("second", CLOSE)
            for cut in (len(whole), 30, whole.index("first"), whole.index("first") + 2):
                answer = await server.exchange(whole[:cut], whole[cut:], pause_s=0.02)
                assert answer.count(b"HTTP/1.1 200") == 2, answer
                assert b"first" in answer and answer.endswith(b"second")
        assert not server.refused


async def test_it_is_known_whether_a_caller_has_gone_before_its_answer() -> None:
    abandoned.clear()
    async with serving() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post("body").replace("POST / ", "POST /slow ").encode())
        await writer.drain()
        await asyncio.sleep(0.05)
        assert not abandoned
        writer.close()
        async with asyncio.timeout(60):
            while not abandoned:
                await asyncio.sleep(0.01)
        assert (await server.exchange(post("still served", CLOSE))).endswith(b"still served")


async def test_what_is_no_http_gets_an_error_like_every_other() -> None:
    async with serving() as server:
        for text in ("nonsense\r\n\r\n", "CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02"):
            head, _, body = (await server.exchange(text)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400") and b"application/json" in head
            assert set(json.loads(body)) == {"error", "detail"}
        assert server.refused == {"bad_request": 3}


async def test_headers_are_bounded_in_size_however_they_come() -> None:
    # On a slow machine neither their time may pass first, nor many pieces follow the refusal.
    async with serving(header_timeout_s=60.0) as server:
        start = "GET / HTTP/1.1\r\nHost: x\r\n"
        heads = [
            [start + f"X: {'x' * 5000}\r\n\r\n"],
            [start + "X: ", *["x" * 1000] * 50],
            [start, *["A: b\r\n"] * 700],
            ["GET /" + "x" * 60_000],
        ]
        for pieces in heads:
            answer = await server.exchange(*pieces, pause_s=0.001)
            assert answer.startswith(b"HTTP/1.1 431"), answer
        assert server.refused == {"headers_too_large": 4}
        body = "y" * 100_000
        assert (await server.exchange(post(body, CLOSE))).endswith(body.encode()), "a body is no header"


async def test_headers_are_bounded_in_time_and_idle_connections_close() -> None:
    async with serving() as server:
        assert (await server.exchange("GET / HT")).startswith(b"HTTP/1.1 408")
        drip = ["GET / HTTP/1.1\r\n", *["A: b\r\n"] * 12]
        assert (await server.exchange(*drip, pause_s=0.1))[:12] in (b"HTTP/1.1 408", b"")
        assert await server.exchange("") == b""
        assert await server.exchange(*["\r\n"] * 12, pause_s=0.1) == b""
        assert (await server.exchange(post("x"))).endswith(b"x"), "kept alive, then closed"
        assert server.refused == {"slow_headers": 2}


async def test_idle_connections_make_room_for_those_that_ask() -> None:
    async with serving(header_timeout_s=30, max_connections=5) as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(8)]
        assert (await server.exchange(post("x", CLOSE))).endswith(b"x")
        closed = [await asyncio.wait_for(reader.read(), 5) for reader, _ in idle[:4]]
        assert closed == [b""] * 4
        for _, writer in idle:
            writer.close()
        assert not server.refused


async def test_busy_connections_are_not_closed_for_new_ones() -> None:
    async with serving(max_connections=2) as server:
        head = f"POST / HTTP/1.1\r\nHost: x\r\n{CLOSE}Content-Length: 3\r\n\r\n"
        busy = [asyncio.create_task(server.exchange(head, "abc", pause_s=0.6)) for _ in range(2)]
        await asyncio.sleep(0.2)
        answer = await server.exchange("")
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 3" in answer
        assert [(await task)[-3:] for task in busy] == [b"abc", b"abc"]
        assert server.refused == {"too_many_connections": 1}


async def test_a_connection_of_age_ends_with_its_next_answer_and_says_so() -> None:
    async with serving(max_age_s=0.3, header_timeout_s=5) as server:
        young = await server.exchange(post("one"), post("two", CLOSE))
        assert young.count(b"connection: close") == 1, "only where the caller asked for it"
        aged = await server.exchange(post("one"), "", post("two"), "", pause_s=0.2)
        first, second = aged.split(b"HTTP/1.1 200")[1:]
        assert b"connection: close" not in first and b"connection: close" in second
        assert second.endswith(b"two"), "the answer is whole"
        assert not server.refused


def send_all_then_read(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(2**16)


async def test_a_caller_that_is_refused_while_it_sends_reads_why() -> None:
    """A close with unread data resets the connection, and the answer may be lost with it."""
    async with serving() as server:
        body = "x" * 20_000_000
        for _ in range(3):
            whole = post(body).replace("POST /", "POST /unread").encode()
            answer = await server.exchange(
                *(whole[start : start + 2**16] for start in range(0, 2**22, 2**16))
            )
            assert answer.startswith(b"HTTP/1.1 413") and answer.endswith(b"refused")
            assert (await asyncio.to_thread(send_all_then_read, server.port, whole)).endswith(b"refused")


async def test_an_answer_leaves_in_one_write() -> None:
    """What `CorkedTransport` takes for granted: uvicorn writes a head, then a body."""
    written: list[bytes] = []

    class Recording(LimitedProtocol):
        def connection_made(self, transport: Any) -> None:
            write = transport.write
            recorder = type("Recorder", (), {"__getattr__": lambda _, name: getattr(transport, name)})()
            recorder.write = lambda data: (written.append(data), write(data))
            super().connection_made(recorder)

    Recording.limits = ConnectionLimits(5, 4096, 5.0, 60.0, 1, lambda _: None)
    config = uvicorn.Config(echo, http=Recording, port=free_tcp_port(), log_level="critical", lifespan="off")
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    await Server(config.port).exchange(post("one", CLOSE))
    running.should_exit = True
    await task
    assert len(written) == 1 and written[0].endswith(b"\r\n\r\none")
