import email.utils
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from streaming.errors import (
    BatchRejected,
    BatchTooLarge,
    ServiceError,
    ServiceRefused,
    ServiceUnavailable,
    SettingsError,
)
from streaming.scoring.client import HttpClassifier, retry_after_s
from streaming.settings.sections import ServiceSettings

DECISION = {"transaction_id": "T", "decision": "approve", "release": "7", "is_fraud": False}
Handler = Callable[[httpx.Request], httpx.Response]


def classifier(handler: Handler, **settings: object) -> HttpClassifier:
    return HttpClassifier(ServiceSettings(**settings), httpx.MockTransport(handler))  # type: ignore[arg-type]


def answer(status: int, content: object = None, **headers: str) -> Handler:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: httpx.Response(status, json=content, headers=names)


def failure_of(handler: Handler) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        classifier(handler).classify([b"{}"], ["T"])
    return caught.value


def test_transactions_are_joined_as_they_are() -> None:
    bodies = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append((request.content, request.headers["content-type"]))
        return httpx.Response(200, json=[DECISION, DECISION])

    decisions = classifier(handler).classify([b' {"a":1} ', b'{"b": 2.50}'], ["T", None])
    assert bodies == [(b'[ {"a":1} ,{"b": 2.50}]', "application/json")]
    assert [v.decision for v in decisions] == ["approve", "approve"]
    assert json.loads(decisions[0].raw) == DECISION


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_unavailable(status: int) -> None:
    error = failure_of(answer(status, retry_after="2"))
    assert isinstance(error, ServiceUnavailable)
    assert (error.retry_after_s, error.reason) == (2.0, str(status))


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 405, 415, 418])
def test_what_a_person_must_fix_is_refused(status: int) -> None:
    error = failure_of(answer(status))
    assert isinstance(error, ServiceRefused)
    assert str(status) in str(error)


def test_a_413_is_too_large() -> None:
    assert isinstance(failure_of(answer(413)), BatchTooLarge)


def test_a_400_names_its_items() -> None:
    detail = [
        {"loc": [3, "V1"], "type": "missing", "msg": "required"},
        {"loc": [3, "V2"], "type": "finite", "msg": "not finite"},
        {"loc": ["body", 5, "Amount"], "type": "range", "msg": "too large"},
    ]
    error = failure_of(answer(400, {"error": "x", "detail": detail}))
    assert isinstance(error, BatchRejected)
    assert [(i.position, i.reason, i.message) for i in error.items] == [
        (3, "missing", "V1: required"),
        (5, "range", "Amount: too large"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        [],
        [7],
        [{"loc": "V1"}],
        [{"loc": []}],
        [{"loc": ["V1"]}],
        [{"loc": [True, "V1"]}],
    ],
)
def test_a_400_may_name_nothing(content: object) -> None:
    error = failure_of(answer(400, {"error": "The body is not JSON.", "detail": content}))
    assert isinstance(error, BatchRejected)
    assert error.items == ()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Invalid HTTP request received.",  # uvicorn
        b"<html><head><title>400 Bad Request</title></head></html>",  # nginx
        b"null",
        b"[]",
        b"{}",
        b'{"error": "x"}',
        b'{"error": 7, "detail": []}',
        b'{"error": "x", "detail": "text"}',
        b'{"detail": [{"loc": [0, "V1"], "type": "missing", "msg": "required"}]}',
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_400_of_somebody_else_condemns_no_transaction(status: int, body: bytes) -> None:
    error = failure_of(lambda request: httpx.Response(status, content=body))
    assert isinstance(error, ServiceRefused)
    assert "what stands before it" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        "x",
        [],
        [DECISION, DECISION],
        [7],
        [{}],
        [{**DECISION, "decision": "maybe"}],
        [{**DECISION, "transaction_id": "other"}],
        [{k: v for k, v in DECISION.items() if k != "transaction_id"}],
    ],
)
def test_a_200_that_breaks_the_contract_comes_from_no_sound_service(content: object) -> None:
    assert isinstance(failure_of(answer(200, content)), ServiceUnavailable)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (httpx.ConnectError("x"), "connect"),
        (httpx.ConnectTimeout("x"), "timeout"),
        (httpx.ReadTimeout("x"), "timeout"),
        (httpx.ReadError("x"), "transport"),
        (httpx.RemoteProtocolError("x"), "transport"),
    ],
)
def test_a_broken_connection_is_unavailable(raised: Exception, reason: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise raised

    error = failure_of(handler)
    assert isinstance(error, ServiceUnavailable)
    assert error.reason == reason


class Dripping(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        for _ in range(1000):
            time.sleep(0.01)
            yield b" "


def test_a_dripping_answer_has_a_deadline() -> None:
    service = classifier(lambda request: httpx.Response(200, stream=Dripping()), request_timeout_s=0.1)
    begun = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="in time"):
        service.classify([b"{}"], [None])
    assert time.monotonic() - begun < 2


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.scoring.client.MAX_ANSWER_BYTES", 10)
    assert "too large" in str(failure_of(answer(200, [DECISION])))


def test_the_key_is_sent_and_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("x-api-key"))
        return httpx.Response(200, json=[DECISION])

    for settings in ({"api_key": "open"}, {"api_key_file": tmp_path / "key"}, {}):
        classifier(handler, **settings).classify([b"{}"], [None])
    assert seen == ["open", "secret", None]


@pytest.mark.parametrize("name", ["api_key_file", "ca_file"])
def test_a_missing_file_is_a_wrong_setting(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=name):
        classifier(answer(200), **{name: tmp_path / "missing"})


@pytest.mark.parametrize(
    "url",
    [
        "http://h:port/classify",
        "http://h:99999/classify",
        "http://h:0/classify",
        "http://[::1/classify",
        "http://:80/classify",
    ],
)
def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match=r"service\.classify_url"):
        classifier(answer(200), classify_url=url)


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_a_key_that_no_header_can_hold_is_a_wrong_setting(key: str) -> None:
    with pytest.raises(SettingsError, match=r"service\.api_key") as caught:
        classifier(answer(200), api_key=key)
    assert key not in str(caught.value)


def test_the_systems_authorities_are_trusted_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    genuine = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **names: asked.append(names) or genuine())
    classifier(answer(200))
    assert asked == [{}]


def test_readiness_is_asked_at_the_root_of_the_service() -> None:
    paths = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200 if len(paths) == 1 else 503)

    service = classifier(handler, classify_url="http://scoring:3000/classify")
    assert [service.is_ready(), service.is_ready()] == [True, False]
    assert paths == ["/readyz", "/readyz"]


def test_an_unreachable_service_is_not_ready() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("x")

    assert not classifier(handler).is_ready()


@pytest.mark.parametrize("value", [None, "", "soon", "-1", "inf", "nan"])
def test_a_useless_retry_after_is_ignored(value: str | None) -> None:
    assert retry_after_s(value) is None


def test_retry_after_may_be_a_date() -> None:
    found = retry_after_s(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert found is not None
    assert 55 < found <= 60
    assert retry_after_s(email.utils.formatdate(time.time() - 60, usegmt=True)) == 0.0


@pytest.mark.parametrize(
    ("reasons", "query"), [("none", b""), ("alarms", b"explain=alarms"), ("all", b"explain=true")]
)
def test_reasons_are_asked_for_as_the_setting_says(reasons: str, query: bytes) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, request.url.query))
        return httpx.Response(200, json=[{**DECISION, "reasons": [{"feature": "V14"}]}])

    (decision,) = classifier(handler, reasons=reasons).classify([b"{}"], ["T"])
    assert asked == [("/classify", query)]
    assert json.loads(decision.raw)["reasons"] == [{"feature": "V14"}]


def test_a_service_that_does_not_know_the_query_ends_the_bridge_and_makes_no_dead_letters() -> None:
    fault = {"loc": ["query", "explain"], "type": "bool_parsing", "msg": "Input should be true or false"}
    error = failure_of(answer(400, {"error": "explain is true or false.", "detail": [fault]}))
    assert isinstance(error, ServiceRefused)
    assert "service.reasons" in str(error)


class Replica(ThreadingHTTPServer):
    """One of several servers behind one address: the kernel gives each connection to one of them."""

    daemon_threads = True
    allow_reuse_port = True
    requests = 0


class Deciding(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Replica

    def do_POST(self) -> None:
        self.server.requests += 1
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps([DECISION]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(("max_age_s", "shares"), [(0.001, 2), (3600, 1)])
def test_connections_are_renewed_so_that_every_replica_gets_requests(max_age_s: float, shares: int) -> None:
    """Kept alive for ever, they stay with the replica that they met first: the second case shows it."""
    with Replica(("127.0.0.1", 0), Deciding) as first, Replica(first.server_address, Deciding) as second:
        for replica in (first, second):
            threading.Thread(target=replica.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{first.server_port}/classify"
        client = HttpClassifier(ServiceSettings(classify_url=url, connection_max_age_s=max_age_s))
        for _ in range(100):
            client.classify([b"{}"], ["T"])
        client.close()
        counts = [first.requests, second.requests]
        first.shutdown()
        second.shutdown()
    assert sum(counts) == 100
    # 100 connections, each to either: fewer than 20 for one of them has a chance of 1e-10.
    assert sum(count >= 20 for count in counts) == shares


def test_readiness_is_asked_beside_classify_behind_a_prefix() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200)

    settings = ServiceSettings(classify_url="http://gateway/fraud/v1/classify")
    assert HttpClassifier(settings, httpx.MockTransport(answer)).is_ready()
    assert asked == ["/fraud/v1/readyz"]
