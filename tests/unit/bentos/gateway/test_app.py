"""The public application on plain ASGI: limits, keys, methods, and what is logged."""

import asyncio
import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from bentos.classify.explainer import Explain
from bentos.classify.handler import Answer
from bentos.decision_message import DecisionMessage, ModelScores
from bentos.errors import OverloadedError
from bentos.gateway.app import GatewayApp
from bentos.metrics import Metrics
from bentos.settings.load import Settings

JSON = {"content-type": "application/json"}
DECISION = DecisionMessage(
    transaction_id="T",
    decision="review",
    is_fraud=True,
    fraud_probability=0.3,
    risk_level="MEDIUM",
    raised_by=msgspec.Raw(b'["neural_net"]'),
    scores=ModelScores(0.9, 0.1),
    release="7",
    models=msgspec.Raw(b"{}"),
)


class Handler:
    """Answers every body with its own length."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.error: Exception | None = None

    async def handle(self, body: bytes, explain: Explain = Explain.NONE) -> Answer:
        if self.error is not None:
            raise self.error
        self.bodies.append(body)
        text = json.dumps({"length": len(body), "explain": explain.value})
        return Answer(text.encode(), [DECISION], 0.0, 0.0)


class Gateway:
    """The public application with fakes behind it."""

    def __init__(self, **settings: Any) -> None:
        self.handler = Handler()
        self.registry = CollectorRegistry()
        self.passed_on: list[str] = []
        self.backend = SimpleNamespace(
            handler=self.handler,
            metrics=Metrics(self.registry),
            page=b"<html>",
            openapi=b"{}",
            info=b"{}",
            __is_ready__=self.is_ready,
        )
        self.ready = True
        self.app = GatewayApp(self.application, Settings(**settings), lambda: self.backend)

    async def is_ready(self) -> bool:
        return self.ready

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
        "application/json; charset=UTF-8;",
        "application/json; charset=utf-8; v=1",
        "application/json; v=1; charset=utf-8",
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
        {"content-type": "application/json; v=1; charset=utf-16"},
        {"content-type": 'application/json; v=";charset=utf-8"; charset="utf-16"'},
        {"content-type": "application/json; charset=utf-8; charset=utf-16"},
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


BUFFER = {"max_buffered_bytes": 100_000, "max_body_bytes": 90_000, "body_timeout_s": 0.2}


async def test_bodies_that_have_arrived_are_bounded_together() -> None:
    gateway = Gateway(request=BUFFER)
    slow = asyncio.ensure_future(gateway.ask(chunks=[b" " * 70_000, None]))
    await asyncio.sleep(0.02)
    refused = await gateway.ask(chunks=[b" " * 70_000])
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert (await gateway.ask(chunks=[b" " * 60_000])).status == 200, "a small body is always let in"
    assert (await slow).status == 408
    assert (await gateway.ask(chunks=[b" " * 70_000])).status == 200
    assert gateway.app._bodies.buffered_bytes == 0


async def test_bytes_that_are_only_announced_shut_nobody_out() -> None:
    """32 connections that announced 16 MiB and sent nothing kept everybody out for 11 s."""
    gateway = Gateway(request=BUFFER)
    announced = {**JSON, "content-length": "90000"}
    silent = [asyncio.ensure_future(gateway.ask(headers=announced, chunks=[None])) for _ in range(32)]
    await asyncio.sleep(0.02)
    assert (await gateway.ask(chunks=[b" " * 80_000])).status == 200
    assert {(await answer).status for answer in silent} == {408}
    assert gateway.app._bodies.buffered_bytes == 0


@pytest.mark.parametrize(
    ("query", "explain"),
    [
        ("explain=true", "true"),
        ("explain=alarms", "alarms"),
        ("explain=false", "false"),
        ("", "false"),
        ("x=1", "false"),
    ],
)
async def test_reasons_on_request(query: str, explain: str) -> None:
    answer = await Gateway().ask(query=query)
    assert (answer.status, json.loads(answer.body)["explain"]) == (200, explain)


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


class _Cycle:
    """A request as uvicorn hands it over; its caller gives up while it is decided."""

    def __init__(self) -> None:
        self.disconnected = False

    async def receive(self) -> Any:
        self.disconnected = True
        return {"type": "http.request", "body": b"{}"}


async def test_a_request_that_is_asked_again_counts_once() -> None:
    """A caller that gave up asks again: what it did not get was counted as answered all the same."""
    gateway = Gateway()
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": headers}

    async def send(_: Any) -> None:
        """uvicorn says nothing when the caller has gone."""

    await gateway.app(scope, _Cycle().receive, send)
    await gateway.ask()
    gateway.backend.metrics.flush()
    value = gateway.registry.get_sample_value
    assert len(gateway.handler.bodies) == 2
    assert value("fraud_decisions_total", {"decision": "review", "release": "7"}) == 1
    assert value("fraud_transactions_total") == 1
    assert value("fraud_alarms_total", {"raised_by": "neural_net", "release": "7"}) == 1
    assert value("fraud_requests_total", {"status": "200"}) == 1
    assert value("fraud_request_seconds_count") == 1
    assert gateway.refusals("client_gone") == 1


async def test_the_access_log_tells_no_card_data(capsys: pytest.CaptureFixture[str]) -> None:
    gateway = Gateway(log={"access": True})
    await gateway.ask(chunks=[b'{"V1": 4929123412341234}'], query="explain=true&secret=4929123412341234")
    (line,) = capsys.readouterr().out.splitlines()
    logged = json.loads(line)
    assert (logged["path"], logged["status"], logged["transactions"]) == ("/classify", 200, 1)
    assert "4929123412341234" not in line


@pytest.mark.parametrize(
    ("path", "status", "logged"),
    [("/classify", 401, "/classify"), ("/info", 401, "/info"), ("/4929123412341234", 404, "unknown")],
)
async def test_the_access_log_names_who_is_refused(
    capsys: pytest.CaptureFixture[str], path: str, status: int, logged: str
) -> None:
    """The alert KeysRefused sends a person there: which address tries keys."""
    gateway = Gateway(log={"access": True}, security={"api_keys": ["key"]})
    answer = await gateway.ask(path=path, headers={**JSON, "x-api-key": "another"})
    assert answer.status == status
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert (told["path"], told["status"], told["transactions"]) == (logged, status, 0)
    assert "client" in told and "another" not in line and "4929123412341234" not in line


async def test_the_log_is_off_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    await Gateway().ask()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("headers", "query"),
    [({"content-type": "text/plain"}, ""), (JSON, "explain=1"), ({**JSON, "x-api-key": "x"}, "")],
)
async def test_a_caller_that_waits_for_continue_is_not_read_as_the_next(
    headers: dict[str, str], query: str
) -> None:
    """What follows on the connection would be taken for the body that it does not send now."""
    gateway = Gateway(security={"api_keys": ["key"]} if "x-api-key" in headers else {})
    answer = await gateway.ask(headers={**headers, "expect": "100-continue"}, query=query)
    assert (answer.status >= 400, answer.headers["connection"], answer.unread) == (True, "close", 1)
    assert "connection" not in (await gateway.ask(headers=headers, query=query)).headers


async def test_not_ready_is_an_error_like_every_other() -> None:
    gateway = Gateway()
    assert (await gateway.ask("GET", "/readyz")).status == 200
    gateway.ready = False
    answer = await gateway.ask("GET", "/readyz")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.body) == {"error": "Not ready: a runner does not answer.", "detail": []}
    assert gateway.passed_on == []


async def test_slow_callers_and_refusals_do_not_count_as_slow_decisions() -> None:
    """The time of a request begins when its body has arrived; stages not reached are not observed."""
    gateway = Gateway(request={"body_timeout_s": 0.05})
    await gateway.ask(chunks=[b"{", None])
    await gateway.ask(headers={})
    gateway.handler.error = OverloadedError("full", 3)
    await gateway.ask()
    gateway.handler.error = None
    await gateway.ask(query="explain=true")
    await gateway.ask()
    gateway.backend.metrics.flush()
    value = gateway.registry.get_sample_value
    assert value("fraud_request_seconds_count") == 1
    assert value("fraud_explain_request_seconds_count") == 1
    assert value("fraud_stage_seconds_count", {"stage": "decode"}) == 2
    assert value("fraud_stage_seconds_count", {"stage": "receive"}) == 3
    assert value("fraud_stage_seconds_count", {"stage": "policy"}) == 0
    assert value("fraud_decisions_total", {"decision": "review", "release": "7"}) == 2
    assert value("fraud_requests_total", {"status": "503"}) == 1
