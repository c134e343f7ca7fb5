"""Load for `benchmarks.serving`: wrk where it is installed, else a bundled client on plain asyncio."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.serving_original import FEATURES

# Walks through the bodies, so that no cache of one answer could flatter anybody. The files come as arguments.
WRK_SCRIPT = """
local bodies, number = {}, 0
function init(arguments)
  for line in io.lines(arguments[1]) do bodies[#bodies + 1] = line end
end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function request()
  number = number % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[number])
end
foreign = 0
local the_thread
function setup(thread) the_thread = thread end
function done(summary, latency, requests)
  local errors = summary.errors
  local form = 'RESULT {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, ' ..
    '"failed": %d, "foreign": %d}\\n'
  io.write(string.format(form, summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout, the_thread:get("foreign")))
end
"""
# Only where answers are looked at: it costs the generator a third of its speed.
WRK_LOOK = """
local accepted = {%s}
function response(status, headers, body)
  for _, text in ipairs(accepted) do if body:find(text, 1, true) then return end end
  foreign = foreign + 1
end
"""


@dataclass
class Load:
    """What a load measured."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int
    foreign: int = 0
    """Answers that held none of the accepted texts."""

    @property
    def per_second(self) -> float:
        """Answers with a 2xx status a second."""
        return (self.requests - self.failed) / self.seconds


def bodies(rows: int, count: int = 64) -> list[bytes]:
    """Return request bodies of so many transactions each, all different; a single one is a bare object."""
    random = np.random.default_rng(rows)
    made = []
    for _ in range(count if rows == 1 else max(2, 4000 // rows)):
        features = random.normal(size=(rows, 30)).round(6)
        features[:, 0] = random.integers(0, 172_792, rows)
        features[:, 29] = random.lognormal(3, 1.5, rows).round(2)
        listed = [dict(zip(FEATURES, row, strict=True)) for row in features.tolist()]
        made.append(json.dumps(listed[0] if rows == 1 else listed).encode())
    return made


def generator() -> str:
    """Return the name of the load generator in use."""
    return "wrk" if shutil.which("wrk") else "bundled client"


def put_load(
    url: str, bodies: list[bytes], connections: int, seconds: float, accepted: Sequence[str] = ()
) -> Load:
    """Send the bodies over so many connections for so long, each as soon as the last was answered.

    With texts `accepted`, every answer must hold one of them.
    """
    if shutil.which("wrk"):
        return _wrk(url, bodies, connections, seconds, accepted)
    return asyncio.run(_bundled(url, bodies, connections, seconds, accepted))


def _wrk(url: str, bodies: list[bytes], connections: int, seconds: float, accepted: Sequence[str]) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        script, lines = Path(folder) / "load.lua", Path(folder) / "bodies"
        look = WRK_LOOK % ", ".join(f"[==[{text}]==]" for text in accepted) if accepted else ""
        script.write_text(WRK_SCRIPT + look)
        lines.write_bytes(b"\n".join(bodies))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
        done = subprocess.run(
            [*command, "-s", str(script), url, "--", str(lines)], capture_output=True, text=True, check=True
        )
    found = re.search(r"RESULT (\{.*\})", done.stdout)
    if found is None:
        raise RuntimeError(f"wrk said: {done.stdout}{done.stderr}")
    return Load(**json.loads(found.group(1)))


async def _bundled(
    url: str, bodies: list[bytes], connections: int, seconds: float, accepted: Sequence[str]
) -> Load:
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    requests = [head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    latencies: list[float] = []
    failed = foreign = 0
    wanted = [text.encode() for text in accepted]
    ends = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal failed, foreign
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while (started := time.perf_counter()) < ends:
            number = (number + 1) % len(requests)
            writer.write(requests[number])
            answer_head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer_head.lower())
            answer = await reader.readexactly(int(length.group(1)) if length else 0)
            latencies.append(time.perf_counter() - started)
            failed += not answer_head.startswith(b"HTTP/1.1 2")
            foreign += bool(wanted) and not any(text in answer for text in wanted)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(caller(number * 7) for number in range(connections)))
    latencies.sort()
    return Load(
        requests=len(latencies),
        seconds=time.perf_counter() - began,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[int(len(latencies) * 0.99)] * 1e3,
        failed=failed,
        foreign=foreign,
    )
