"""The public application on plain ASGI: limits, keys, methods, and what is logged."""

import asyncio
import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bentos.classify.handler import Answer
from bentos.errors import OverloadedError
from bentos.gateway.app import GatewayApp
from bentos.metrics import Metrics
from bentos.settings.load import Settings

JSON = {"content-type": "application/json"}


class Handler:
    """Answers every body with its own length."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.error: Exception | None = None

    async def handle(self, body: bytes, wants_reasons: bool = False) -> Answer:
        if self.error is not None:
            raise self.error
        self.bodies.append(body)
        return Answer(json.dumps({"length": len(body), "reasons": wants_reasons}).encode(), 1, 0.0, 0.0)


class Gateway:
    """The public application with fakes behind it."""

    def __init__(self, **settings: Any) -> None:
        self.handler = Handler()
        self.registry = CollectorRegistry()
        self.passed_on: list[str] = []
        self.backend = SimpleNamespace(
            handler=self.handler, metrics=Metrics(self.registry), page=b"<html>", openapi=b"{}", info=b"{}"
        )
        self.app = GatewayApp(self.application, Settings(**settings), lambda: self.backend)

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        self.passed_on.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"BentoML's"})

    async def ask(
        self,
        method: str = "POST",
        path: str = "/classify",
        headers: dict[str, str] = JSON,
        chunks: Iterable[bytes | None] = (b"{}",),
        query: str = "",
    ) -> SimpleNamespace:
        """Send a request; None among `chunks` never arrives."""
        waiting = list(chunks)
        sent: list[Any] = []

        async def receive() -> Any:
            chunk = waiting.pop(0)
            if chunk is None:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("10.0.0.1", 5),
        }
        await self.app(scope, receive, send)
        body = sent[-1]["body"]
        return SimpleNamespace(
            status=sent[0]["status"],
            headers={name.decode(): value.decode() for name, value in sent[0]["headers"]},
            body=body,
            unread=len(waiting),
        )

    def refusals(self, reason: str) -> float:
        return self.registry.get_sample_value("fraud_refused_total", {"reason": reason}) or 0


async def test_a_body_in_pieces_arrives_whole() -> None:
    gateway = Gateway()
    answer = await gateway.ask(chunks=[b"{", b"", b"}"])
    assert (answer.status, gateway.handler.bodies) == (200, [b"{}"])
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "declared",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
    ],
)
async def test_json_by_every_name_of_it(declared: str) -> None:
    assert (await Gateway().ask(headers={"content-type": declared})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/jsonp"},
        {"content-type": "application/vnd.bentoml+pickle"},
        {"content-type": "multipart/form-data"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=utf-16"},
        {**JSON, "content-encoding": "gzip"},
    ],
)
async def test_other_media_types_are_415_unread(headers: dict[str, str]) -> None:
    gateway = Gateway()
    answer = await gateway.ask(headers=headers)
    assert (answer.status, answer.unread, gateway.refusals("media_type")) == (415, 1, 1)


async def test_an_announced_body_over_the_limit_is_not_read() -> None:
    gateway = Gateway(request={"max_body_bytes": 2000})
    answer = await gateway.ask(headers={**JSON, "content-length": "2001"}, chunks=[b"x" * 2001])
    assert (answer.status, answer.unread) == (413, 1)
    assert answer.headers["connection"] == "close"


async def test_an_unannounced_body_is_read_no_further_than_the_limit() -> None:
    gateway = Gateway(request={"max_body_bytes": 2000})
    answer = await gateway.ask(chunks=[b"x" * 1500] * 10)
    assert (answer.status, answer.unread) == (413, 8)
    assert (await gateway.ask(chunks=[b"x" * 2001])).status == 413
    assert (await gateway.ask(chunks=[b"x" * 1000] * 2)).status == 200


async def test_a_slow_body_is_408_in_time() -> None:
    gateway = Gateway(request={"body_timeout_s": 0.05})
    answer = await asyncio.wait_for(gateway.ask(chunks=[b"{", None]), 1)
    assert (answer.status, answer.headers["connection"]) == (408, "close")


async def test_bodies_together_are_bounded() -> None:
    gateway = Gateway(request={"max_buffered_bytes": 1500, "max_body_bytes": 1024, "body_timeout_s": 0.2})
    slow = asyncio.ensure_future(gateway.ask(headers={**JSON, "content-length": "1000"}, chunks=[b"{", None]))
    await asyncio.sleep(0.02)
    refused = await gateway.ask(headers={**JSON, "content-length": "1000"})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert (await slow).status == 408
    assert (await gateway.ask(headers={**JSON, "content-length": "1000"})).status == 200


@pytest.mark.parametrize(
    ("query", "status"), [("explain=true", 200), ("explain=false", 200), ("", 200), ("x=1", 200)]
)
async def test_reasons_on_request(query: str, status: int) -> None:
    answer = await Gateway().ask(query=query)
    assert answer.status == status
    assert json.loads(answer.body)["reasons"] is (query == "explain=true")


@pytest.mark.parametrize(
    "query", ["explain", "explain=1", "explain=TRUE", "explain=true&explain=false", "explain=%ff"]
)
async def test_other_values_of_explain_are_400(query: str) -> None:
    answer = await Gateway().ask(query=query)
    assert answer.status == 400
    assert json.loads(answer.body)["detail"][0]["loc"] == ["query", "explain"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
async def test_classify_takes_post_only(method: str) -> None:
    answer = await Gateway().ask(method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "path", ["/info", "/", "/docs.json", "/metrics", "/livez", "/static_content/index.css"]
)
async def test_the_rest_is_for_reading(path: str) -> None:
    gateway = Gateway()
    assert (await gateway.ask("GET", path)).status == 200
    assert (await gateway.ask("POST", path)).status == 405


@pytest.mark.parametrize(
    "path", ["/classify/", "//classify", "/score", "/contributions", "/static_content", "/x"]
)
async def test_nothing_else_reaches_bentoml(path: str) -> None:
    gateway = Gateway()
    for method in ("GET", "POST"):
        assert (await gateway.ask(method, path)).status == 404
    assert gateway.passed_on == []


async def test_without_the_key_nothing_is_read() -> None:
    gateway = Gateway(security={"api_keys": ["key"]})
    answer = await gateway.ask()
    assert (answer.status, answer.unread) == (401, 1)
    assert json.loads(answer.body) == {"error": "unauthorized", "detail": []}
    assert (await gateway.ask(headers={**JSON, "x-api-key": "key"})).status == 200
    assert (await gateway.ask("GET", "/readyz")).status == 200


async def test_overload_says_when_to_come_back() -> None:
    gateway = Gateway()
    gateway.handler.error = OverloadedError("full", 3)
    answer = await gateway.ask()
    assert (answer.status, answer.headers["retry-after"], gateway.refusals("overloaded")) == (503, "3", 1)


async def test_a_defect_is_counted_as_the_500_it_becomes() -> None:
    gateway = Gateway()
    gateway.handler.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):  # the server answers and logs it
        await gateway.ask()
    gateway.backend.metrics.flush()
    assert gateway.refusals("defect") == 1
    assert gateway.registry.get_sample_value("fraud_requests_total", {"status": "500"}) == 1


async def test_a_caller_who_hangs_up_is_counted_not_answered() -> None:
    gateway = Gateway()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": headers}
    await gateway.app(scope, receive, send)
    assert (sent, gateway.refusals("client_gone")) == ([], 1)


async def test_the_access_log_tells_no_card_data(capsys: pytest.CaptureFixture[str]) -> None:
    gateway = Gateway(log={"access": True})
    await gateway.ask(chunks=[b'{"V1": 4929123412341234}'], query="explain=true&secret=4929123412341234")
    (line,) = capsys.readouterr().out.splitlines()
    logged = json.loads(line)
    assert (logged["path"], logged["status"], logged["transactions"]) == ("/classify", 200, 1)
    assert "4929123412341234" not in line


async def test_the_log_is_off_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    await Gateway().ask()
    assert capsys.readouterr().out == ""
