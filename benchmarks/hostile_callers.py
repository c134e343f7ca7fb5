"""Callers that mean harm: hostile bodies, and connections that send too little, too much, or nonsense.

::

    python -m benchmarks.hostile_callers URL [--bodies 1000] [--minutes 0] [--connections 200] [--pause 0]

Prints what came back as JSON. `benchmarks.hostile` runs it beside good callers; alone, with ``--minutes`` and
``--pause``, it is a fuzzer that a service can be left with for an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.hostile_bodies import MAX_BYTES, draw_body, valid_row

SENDERS = 4
ANSWER_TIMEOUT_S = 60.0
JSON_HEAD = b"POST /classify%b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
# An abrupt end: the kernel sends a reset instead of a goodbye.
RESET = struct.pack("ii", 1, 0)

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


@dataclass
class Outcome:
    """What the hostile callers saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Answers to bodies, by kind and status; ``none`` where the connection ended without one."""
    slowest_s: dict[str, float] = field(default_factory=dict)
    """Slowest answer to a body, by kind."""
    connections: Counter[str] = field(default_factory=Counter)
    """Connections opened, by kind."""


def main() -> None:
    """Attack until all bodies are sent; print what came back."""
    parser = argparse.ArgumentParser(description="Put hostile bodies and connections on a service.")
    parser.add_argument("url", help="where the service is, such as http://127.0.0.1:3000")
    parser.add_argument("--bodies", type=int, default=1000, help="bodies to send (default 1000)")
    parser.add_argument("--minutes", type=float, help="go on for so long, whatever --bodies says")
    parser.add_argument("--connections", type=int, default=200, help="kept at a time (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each body and connection")
    options = parser.parse_args()
    outcome = asyncio.run(attack(options))
    print(json.dumps(vars(outcome)))


async def attack(options: argparse.Namespace) -> Outcome:
    """Send all bodies while so many hostile connections are kept; return what came back."""
    parts = urlsplit(options.url)
    place = (str(parts.hostname), int(parts.port or 80))
    outcome = Outcome()
    draw = random.Random(options.seed)
    ends = time.monotonic() + 60 * (options.minutes or 0)
    bodies = itertools.takewhile(
        lambda number: time.monotonic() < ends if options.minutes else number < options.bodies,
        itertools.count(),
    )

    async def send_bodies() -> None:
        for _ in bodies:
            await send_body(place, draw, outcome)
            await asyncio.sleep(options.pause)

    async def keep_connecting(number: int) -> None:
        drawn = random.Random(f"{options.seed} {number}")
        while True:
            kind = drawn.choice(sorted(CONNECTIONS))
            outcome.connections[kind] += 1
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                await _connect_as(kind, place, drawn)
            await asyncio.sleep(options.pause + 0.05)

    connecting = [asyncio.create_task(keep_connecting(number)) for number in range(options.connections)]
    await asyncio.gather(*(send_bodies() for _ in range(SENDERS)))
    for task in connecting:
        task.cancel()
    await asyncio.gather(*connecting, return_exceptions=True)
    return outcome


async def send_body(place: tuple[str, int], draw: random.Random, outcome: Outcome) -> None:
    """Send one hostile body over a connection of its own and note what comes back."""
    body = draw_body(draw)
    head = JSON_HEAD % body.query.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(
        body.content
    )
    began = time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            status = await _exchange(place, head + body.content)
    except (OSError, EOFError, TimeoutError) as error:
        status = f"none ({type(error).__name__})"
    took = time.perf_counter() - began
    outcome.statuses[f"{body.kind} {status}"] += 1
    outcome.slowest_s[body.kind] = max(took, outcome.slowest_s.get(body.kind, 0.0))


async def _exchange(place: tuple[str, int], request: bytes) -> str:
    reader, writer = await asyncio.open_connection(*place)
    try:
        writer.write(request)
        line = await reader.readline()
        while await reader.read(2**16):
            pass
        return line.split(b" ")[1].decode() if line.count(b" ") > 1 else "none"
    finally:
        writer.transport.abort()


async def _connect_as(kind: str, place: tuple[str, int], draw: random.Random) -> None:
    reader, writer = await asyncio.open_connection(*place)
    try:
        await CONNECTIONS[kind](reader, writer, draw)
    finally:
        if draw.random() < 0.5:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()


async def say_nothing(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Stay until the service closes."""
    await reader.read()


async def drip_head(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Send the head of a request byte by byte."""
    for byte in JSON_HEAD % b"" + b"X: " + b"a" * 1000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.2)
        if writer.is_closing() or reader.at_eof():
            return


async def send_long_head(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Send a head of megabytes."""
    writer.write(JSON_HEAD % b"")
    for _ in range(draw.choice([4, 64])):
        writer.write(b"X-%d: " % draw.randrange(9) + b"a" * 2**16 + draw.choice([b"", b"\r\n"]))
        await writer.drain()
    await reader.read()


async def announce_only(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Announce the longest body and send nothing of it."""
    length = b"Content-Length: %d\r\n" % MAX_BYTES
    writer.write(JSON_HEAD % b"" + draw.choice([length, b"Transfer-Encoding: chunked\r\n"]) + b"\r\n")
    await reader.read()


async def drip_body(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Send a body in chunks of one byte."""
    writer.write(JSON_HEAD % b"" + b"Transfer-Encoding: chunked\r\n\r\n")
    while not (writer.is_closing() or reader.at_eof()):
        writer.write(b"1\r\n[\r\n")
        await writer.drain()
        await asyncio.sleep(0.2)


async def hang_up_in_a_body(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Send half of what was announced, and go."""
    body = draw_body(draw).content
    writer.write(JSON_HEAD % b"" + b"Content-Length: %d\r\n\r\n" % len(body) + body[: len(body) // 2])
    await writer.drain()


async def read_nothing(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Ask for long answers, one after the other, and read none."""
    reader.set_exception(EOFError())
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
    body = json.dumps([valid_row(draw)] * 1000).encode()
    for _ in range(20):
        writer.write(JSON_HEAD % b"" + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        async with asyncio.timeout(30):
            await writer.drain()
    await asyncio.sleep(20)


async def offer_upgrades(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Speak HTTP/2, TLS or WebSocket to a port that does not."""
    upgrade = b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
    opening = draw.choice(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + draw.randbytes(64),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(512),
            upgrade % (b"classify", b"websocket"),
            upgrade % (b"info", b"h2c"),
            b"CONNECT example.org:443 HTTP/1.1\r\nHost: a\r\n\r\n" + draw.randbytes(64),
        ]
    )
    writer.write(opening)
    async with asyncio.timeout(15):
        await reader.read()


async def send_noise(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Send random bytes, or a request with random bytes in it."""
    for _ in range(draw.randint(1, 4)):
        noise = draw.randbytes(draw.choice([1, 16, 1000, 2**16]))
        start = draw.choice(
            [b"", b"POST ", b"GET /", JSON_HEAD % b"", b"POST /classify HTTP/1.1\r\nContent-Length: "]
        )
        writer.write(start + noise)
        await writer.drain()
        await asyncio.sleep(draw.random())
    async with asyncio.timeout(15):
        await reader.read()


async def pipeline(reader: Reader, writer: Writer, draw: random.Random) -> None:
    """Send many requests at once, good and bad ones."""
    body = json.dumps(valid_row(draw)).encode()
    good = JSON_HEAD % b"" + b"Content-Length: %d\r\n\r\n" % len(body) + body
    requests = [
        good,
        b"GET /info HTTP/1.1\r\nHost: a\r\n\r\n",
        JSON_HEAD % b"" + b"Content-Length: 2\r\n\r\n{}",
    ]
    requests.append(b"POST /classify HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"".join(draw.choices(requests, [9, 9, 9, 1], k=200)))
    async with asyncio.timeout(15):
        await reader.read()


CONNECTIONS: dict[str, Callable[[Reader, Writer, random.Random], Awaitable[Any]]] = {
    function.__name__: function
    for function in (
        say_nothing,
        drip_head,
        send_long_head,
        announce_only,
        drip_body,
        hang_up_in_a_body,
        read_nothing,
        offer_upgrades,
        send_noise,
        pipeline,
    )
}


if __name__ == "__main__":
    main()
