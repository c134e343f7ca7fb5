"""A stand-in for ``POST /classify`` that obeys the contract and misbehaves on command.

Its decisions are a pure function of the transaction, so a verifier can recompute them. Run it as
``python -m tests.scripted_service PORT``; ``POST /script`` with ``{"mode": ..., "value": ...}``
changes what it does next:

====================  =====================================================================
``ok``                answers as contracted
``status``            answers `value` (an int) with ``Retry-After: 1`` for 429 and 503
``slow``              answers after `value` seconds
``hang``              reads the request and never answers
``reset``             reads the request and resets the connection
``half``              sends half of the answer and closes
``drip``              sends the answer a byte at a time
``garbage``           answers 200 with something else than decisions
``short``             answers one decision too few
``swap``              answers the decisions in reversed order
``unnamed``           answers 400 without naming items when a transaction is bad
``strict``            decides as another release would
``too_large``         answers 413 to more than `value` transactions
``poison``            answers 500 to a request with a transaction whose id ends with `value`
====================  =====================================================================
"""

import asyncio
import contextlib
import hashlib
import json
import socket
import struct
import sys
from typing import Any

FEATURES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
LIMITS = {"Time": (0.0, 1e10), "Amount": (0.0, 1e12)}
# Reviewed when the fraud probability times Amount reaches it.
EXPECTED_LOSS_BOUND = 15.0
MAX_BODY = 64 * 1024 * 1024


def faults_of(transaction: Any) -> list[tuple[str, str, str]]:
    """Return (field, type, message) for each fault of a transaction."""
    if not isinstance(transaction, dict):
        return [("item", "type", "not an object")]
    faults = []
    for name in FEATURES:
        value = transaction.get(name)
        low, high = LIMITS.get(name, (-1000.0, 1000.0))
        if name not in transaction:
            faults.append((name, "missing", "required"))
        elif isinstance(value, bool) or not isinstance(value, int | float):
            faults.append((name, "number_type", "not a number"))
        elif not low <= value <= high:
            faults.append((name, "out_of_range", "outside its limits"))
    identity = transaction.get("transaction_id", "")
    if not isinstance(identity, str) or len(identity) > 128:
        faults.append(("transaction_id", "string", "not a text of up to 128 characters"))
    return faults


def decide(transaction: dict[str, Any], release: str = "7") -> dict[str, Any]:
    """Return the decision on a sound transaction: scores are bytes of a digest of its features.

    Release 7 is what everybody recomputes; any other has lower thresholds.
    """
    features = ",".join(repr(float(transaction[name])) for name in FEATURES)
    digest = hashlib.sha256(features.encode()).digest()
    network, trees = digest[0] / 255, digest[1] / 255
    threshold = 0.8 if release == "7" else 0.5
    probability = digest[2] / 255
    raised = {
        "neural_net": network >= threshold,
        "xgboost": trees >= threshold,
        "expected_loss": probability * _float32(transaction["Amount"]) >= EXPECTED_LOSS_BOUND,
    }
    raised_by = [name for name, is_raised in raised.items() if is_raised]
    is_fraud = raised["neural_net"] or raised["xgboost"]
    kind = "decline" if raised["neural_net"] and raised["xgboost"] else "review" if raised_by else "approve"
    decision: dict[str, Any] = {
        "decision": kind,
        "is_fraud": is_fraud,
        "fraud_probability": probability,
        "risk_level": {"approve": "LOW", "review": "MEDIUM", "decline": "HIGH"}[kind],
        "raised_by": raised_by,
        "scores": {"neural_net": network, "xgboost": trees},
        "release": release,
        "models": {"neural_net": f"fraud_neural_net:{release}", "xgboost": f"fraud_xgboost:{release}"},
    }
    if "transaction_id" in transaction:
        decision = {"transaction_id": transaction["transaction_id"], **decision}
    return decision


def _float32(number: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


def classify(body: bytes, release: str = "7") -> tuple[int, Any]:
    """Return status and answer for a request body, as the contract has it."""
    try:
        found = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 400, {"error": "The body is not JSON.", "detail": []}
    items = found if isinstance(found, list) else [found]
    detail = [
        {"loc": [index, field], "type": kind, "msg": message}
        for index, item in enumerate(items)
        for field, kind, message in faults_of(item)
    ]
    if detail or not items:
        named = sorted({fault["loc"][0] for fault in detail})[:100]
        return 400, {"error": "Bad transactions.", "detail": [f for f in detail if f["loc"][0] in named]}
    decisions = [decide(item, release) for item in items]
    return 200, decisions if isinstance(found, list) else decisions[0]


def _refuse(_: str) -> float:
    raise ValueError("not JSON")


class ScriptedService:
    """The server; `mode` and `value` may be changed at any time."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.value: Any = None
        self.release = "7"
        self.requests = 0
        self.transactions = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._serve_one(reader, writer):
                pass
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        line = await reader.readline()
        if not line:
            return False
        method, path, _ = line.decode().split(" ", 2)
        headers = {}
        while (line := await reader.readline()).strip():
            name, value = line.decode().split(":", 1)
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if path == "/script":
            return await self._follow(writer, json.loads(body))
        if path == "/readyz":
            return await self._answer(writer, 200 if self.mode != "status" else 503, {})
        if method != "POST" or path.split("?")[0] != "/classify":
            return await self._answer(writer, 404, {"error": "not found", "detail": []})
        self.requests += 1
        return await self._misbehave(writer, body)

    async def _follow(self, writer: asyncio.StreamWriter, order: dict[str, Any]) -> bool:
        self.mode = order.get("mode", self.mode)
        self.value = order.get("value", self.value)
        self.release = "8" if self.mode == "strict" else "7"
        counts = {"requests": self.requests, "transactions": self.transactions}
        return await self._answer(writer, 200, counts)

    async def _misbehave(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        if self.mode == "hang":
            await asyncio.sleep(3600)
        if self.mode == "reset":
            return _reset(writer)
        if self.mode == "status":
            return await self._answer(writer, self.value, {"error": "scripted", "detail": []})
        if self.mode == "garbage":
            return await self._answer(writer, 200, {"hello": "world"})
        if self.mode == "slow":
            await asyncio.sleep(self.value)
        if self.mode == "too_large" and len(json.loads(body)) > self.value:
            return await self._answer(writer, 413, {"error": "too large", "detail": []})
        if self.mode == "poison" and f'{self.value}"'.encode() in body:
            return await self._answer(writer, 500, {"error": "scripted", "detail": []})
        status, answer = classify(body, self.release)
        if status == 400 and self.mode == "unnamed":
            answer["detail"] = []
        if status == 200:
            self.transactions += len(answer) if isinstance(answer, list) else 1
            answer = {"short": lambda a: a[:-1], "swap": lambda a: a[::-1]}.get(self.mode, lambda a: a)(
                answer
            )
        return await self._answer(writer, status, answer)

    async def _answer(self, writer: asyncio.StreamWriter, status: int, answer: Any) -> bool:
        content = json.dumps(answer, separators=(",", ":")).encode()
        wish = "retry-after: 1\r\n" if status in (429, 503) else ""
        kind = "content-type: application/json\r\n"
        head = f"HTTP/1.1 {status} X\r\n{kind}{wish}content-length: {len(content)}\r\n\r\n"
        payload = head.encode() + content
        if self.mode == "half" and status == 200 and len(content) > 60:
            writer.write(payload[: len(payload) // 2])
            await writer.drain()
            return False
        if self.mode == "drip" and status == 200 and len(content) > 60:
            for place in range(len(payload)):
                writer.write(payload[place : place + 1])
                await writer.drain()
                await asyncio.sleep(0.05)
        else:
            writer.write(payload)
        await writer.drain()
        return True


def _reset(writer: asyncio.StreamWriter) -> bool:
    connection = writer.get_extra_info("socket")
    # Lingering for 0 seconds makes the close a reset.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def serve(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(ScriptedService().handle, "127.0.0.1", port, limit=2**20)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
