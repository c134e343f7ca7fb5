"""Every line of the HTTP contract against a served bento."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import bentoml
import httpx
import numpy as np
import pytest

from tests.e2e.faults import wait_until
from tests.serving_fixtures import (
    CALIBRATION,
    EXPECTED_LOSS,
    FEATURES,
    REFERENCE,
    THRESHOLDS,
    Served,
    encoded,
    metric_samples,
)

JSON = {"content-type": "application/json"}


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as opened:
        yield opened


def classify(client: httpx.Client, body: Any, **options: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else encoded(body)
    return client.post("/classify", content=content, headers=JSON, **options)


def concurrently(served: Served, bodies: list[Any], connections: int = 64) -> list[httpx.Response]:
    """Send the bodies over so many connections at once; return the answers in order."""

    answers: dict[int, httpx.Response] = {}
    waiting = iter(enumerate(bodies))

    async def caller(client: httpx.AsyncClient) -> None:
        for number, body in waiting:
            answers[number] = await client.post("/classify", content=encoded(body), headers=JSON)

    async def run() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
            await asyncio.gather(*(caller(client) for _ in range(connections)))
        return [answers[number] for number in range(len(bodies))]

    return asyncio.run(run())


def expected_alarms(transaction: dict[str, Any], decision: dict[str, Any]) -> list[str]:
    alarms = [name for name in ("neural_net", "xgboost") if decision["scores"][name] >= THRESHOLDS[name]]
    loss = decision["fraud_probability"] * np.float64(np.float32(transaction["Amount"]))
    return alarms + ["expected_loss"] * bool(loss >= EXPECTED_LOSS["bound"])


def test_one_transaction_gets_one_decision(client: httpx.Client, transaction: dict[str, Any]) -> None:
    answer = classify(client, transaction)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    decision = answer.json()
    assert list(decision) == [
        "transaction_id",
        "decision",
        "is_fraud",
        "fraud_probability",
        "risk_level",
        "raised_by",
        "scores",
        "release",
        "models",
    ]
    assert decision["transaction_id"] == "T-0"
    assert decision["release"] == "7"
    assert decision["models"] == {"neural_net": "fraud_neural_net:7", "xgboost": "fraud_xgboost:7"}


def test_a_list_gets_a_list_of_the_same_length_and_order(
    client: httpx.Client, transactions: list[dict[str, Any]]
) -> None:
    decisions = classify(client, transactions).json()
    assert [d["transaction_id"] for d in decisions] == [t["transaction_id"] for t in transactions]
    assert len(classify(client, transactions[:1]).json()) == 1
    kinds = {decision["decision"] for decision in decisions}
    assert kinds == {"approve", "review", "decline"}


def test_decision_probability_and_risk_follow_from_the_scores(
    client: httpx.Client, transactions: list[dict[str, Any]]
) -> None:
    seen = set()
    for transaction, decision in zip(transactions, classify(client, transactions).json(), strict=True):
        scores = decision["scores"]
        alarms = expected_alarms(transaction, decision)
        models = [alarm for alarm in alarms if alarm != "expected_loss"]
        assert decision["raised_by"] == alarms
        assert decision["decision"] == ("decline" if len(models) == 2 else "review" if alarms else "approve")
        assert decision["is_fraud"] == bool(models)
        seen.add((*alarms, decision["decision"]))
        assert (
            decision["risk_level"]
            == {"approve": "LOW", "review": "MEDIUM", "decline": "HIGH"}[decision["decision"]]
        )
        log_odds = CALIBRATION["intercept"]
        for model, coefficient in CALIBRATION["coefficients"].items():
            score = np.clip(scores[model], 1e-7, 1 - 1e-7)
            log_odds += coefficient * np.log(score / (1 - score))
        assert decision["fraud_probability"] == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=1e-9)
    assert ("expected_loss", "review") in seen and len(seen) >= 6, seen


def test_network_scores_are_the_models_own(client: httpx.Client, transactions: list[dict[str, Any]]) -> None:
    weights = np.zeros(30)
    weights[[4, 11, 14]] = 0.5, 0.4, -0.6
    rows = np.array([[row[name] for name in FEATURES] for row in transactions])
    expected = 1 / (1 + np.exp(-(rows @ weights)))
    got = [decision["scores"]["neural_net"] for decision in classify(client, transactions).json()]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_list_and_concurrent_single_requests_agree(
    served: Served, client: httpx.Client, transactions: list[dict[str, Any]]
) -> None:
    some = transactions[:128]
    together = classify(client, some).json()
    alone = [answer.json() for answer in concurrently(served, some)]
    for one, other in zip(together, alone, strict=True):
        assert one["decision"] == other["decision"]
        for model in ("neural_net", "xgboost"):
            assert one["scores"][model] == pytest.approx(other["scores"][model], abs=1e-6)


def test_the_longest_list_and_one_more(client: httpx.Client, transactions: list[dict[str, Any]]) -> None:
    longest = (transactions * 9)[:10_000]
    decisions = classify(client, longest).json()
    assert [d["transaction_id"] for d in decisions] == [t["transaction_id"] for t in longest]
    answer = classify(client, [*longest, transactions[0]])
    assert (answer.status_code, "10000" in answer.json()["error"]) == (413, True)


def test_identity_is_optional_and_others_are_ignored(
    client: httpx.Client, transaction: dict[str, Any]
) -> None:
    del transaction["transaction_id"]
    answer = classify(client, {**transaction, "Class": 1, "note": {"V1": "x"}})
    assert answer.status_code == 200
    assert "transaction_id" not in answer.json()


def test_reasons_are_the_strongest_features(client: httpx.Client, transactions: list[dict[str, Any]]) -> None:
    for body in (transactions[0], transactions[:300]):
        answer = classify(client, body, params={"explain": "true"})
        assert answer.status_code == 200
        for decision in answer.json() if isinstance(body, list) else [answer.json()]:
            reasons = decision["reasons"]
            assert len(reasons) == 5
            assert all(set(reason) == {"feature", "contribution"} for reason in reasons)
            strengths = [abs(reason["contribution"]) for reason in reasons]
            assert strengths == sorted(strengths, reverse=True)
            assert {reason["feature"] for reason in reasons} <= set(FEATURES)
    alarming = {**transactions[1], "V14": -9.0}
    strongest = classify(client, alarming, params={"explain": "true"}).json()["reasons"][0]
    assert (strongest["feature"], strongest["contribution"] > 0) == ("V14", True)
    plain = classify(client, transactions[0]).json()
    assert not {"reasons", "reasons_for"} & set(plain)


def test_reasons_for_alarms_only(client: httpx.Client, transactions: list[dict[str, Any]]) -> None:
    for decision in classify(client, transactions[:200], params={"explain": "alarms"}).json():
        assert ("reasons" in decision) == (decision["decision"] != "approve")


def test_reasons_explain_the_alarm_and_sum_to_its_log_odds(
    serve: Callable[..., Served], transactions: list[dict[str, Any]]
) -> None:
    """Base value and contributions sum to the log-odds of the score that raised the alarm, for each model."""
    served = serve({"SERVING__EXPLAIN__REASONS": "30"})
    with httpx.Client(base_url=served.url, timeout=60) as client:
        decisions = classify(client, transactions, params={"explain": "true"}).json()
    explained = set()
    for decision in decisions:
        models = [name for name in decision["raised_by"] if name != "expected_loss"]
        reasons_for = decision["reasons_for"]
        assert reasons_for["score"] == (models[0] if len(models) == 1 else "fraud_probability")
        explained.add(reasons_for["score"])
        total = reasons_for["base_value"] + sum(reason["contribution"] for reason in decision["reasons"])
        score = {**decision["scores"], "fraud_probability": decision["fraud_probability"]}[
            reasons_for["score"]
        ]
        assert total == pytest.approx(np.log(score / (1 - score)), abs=1e-4)
        assert total == pytest.approx(reasons_for["log_odds"], abs=1e-9)
    assert explained == {"neural_net", "xgboost", "fraud_probability"}
    lone = [d for d in decisions if d["reasons_for"]["score"] == "neural_net"]
    assert all(d["reasons"][0]["feature"] in ("V4", "V11", "V14") for d in lone), "only these have a weight"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"V1": NaN}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'"text"', 400),
        (b"x" * (16 * 2**20 + 1), 413),
    ],
    ids=lambda value: str(value)[:12],
)
def test_bad_bodies_are_the_callers_fault(client: httpx.Client, body: bytes, status: int) -> None:
    answer = classify(client, body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "detail"}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", '"1.5"', "true", "null", "1001", "-1001"])
def test_what_is_not_a_number_within_limits_is_refused(
    client: httpx.Client, transaction: dict[str, Any], value: str
) -> None:
    text = json.dumps({**transaction, "V9": "HERE"}).replace('"HERE"', value)
    assert classify(client, text.encode()).status_code == 400


def test_every_bad_row_is_named_and_good_neighbours_are_not(
    client: httpx.Client, transactions: list[dict[str, Any]]
) -> None:
    spoilt = [dict(row) for row in transactions]
    bad = set(range(3, 1200, 100))
    for index in bad:
        spoilt[index]["V5"] = "five"
    answer = classify(client, spoilt)
    assert answer.status_code == 400
    assert {detail["loc"][0] for detail in answer.json()["detail"]} == bad
    assert {detail["loc"][1] for detail in answer.json()["detail"]} == {"V5"}
    rest = [row for index, row in enumerate(spoilt) if index not in bad]
    assert len(classify(client, rest).json()) == len(rest)


def test_bad_requests_harm_no_concurrent_neighbour(
    served: Served, transactions: list[dict[str, Any]]
) -> None:
    bodies = [row if number % 3 else {**row, "V1": None} for number, row in enumerate(transactions[:90])]
    statuses = [answer.status_code for answer in concurrently(served, bodies)]
    assert statuses == [200 if number % 3 else 400 for number in range(90)]


def test_other_media_types_are_415(client: httpx.Client, transaction: dict[str, Any]) -> None:
    for media_type in ("text/plain", "application/vnd.bentoml+pickle", "multipart/form-data"):
        answer = client.post("/classify", content=encoded(transaction), headers={"content-type": media_type})
        assert answer.status_code == 415


def test_info_tells_what_is_served(client: httpx.Client) -> None:
    info = client.get("/info").json()
    assert info["release"] == "7"
    assert info["feature_names"] == list(FEATURES)
    assert info["thresholds"] == THRESHOLDS
    assert info["calibration"]["coefficients"] == CALIBRATION["coefficients"]
    assert info["training_run_id"] == "run-7"
    assert info["data"]["fingerprint"] == "f" * 8
    assert set(info["metrics"]["pair.average_precision"]) == {"value", "low", "high"}
    assert info["reference"] == REFERENCE


@pytest.mark.parametrize(
    "path", ["/healthz", "/livez", "/readyz", "/metrics", "/docs.json", "/schema.json", "/"]
)
def test_the_other_paths_answer(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200
    assert client.head(path).status_code in (200, 405)


def test_the_page_loads_from_nowhere_else(client: httpx.Client) -> None:
    """The page and what it loads come from here: no third party learns who looks at transactions."""
    page = client.get("/").text
    assert "docs.json" in page
    assert not re.findall(r"https?://", page)
    for asset in re.findall(r'(?:src|href)="\./([^"]+)"', page):
        assert client.get(f"/{asset}").status_code == 200


def test_the_example_of_the_document_works_when_pasted(client: httpx.Client) -> None:
    operation = client.get("/docs.json").json()["paths"]["/classify"]["post"]
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        assert classify(client, example["value"]).status_code == 200


def test_bentomls_own_client_works(served: Served, transactions: list[dict[str, Any]]) -> None:
    with bentoml.SyncHTTPClient(served.url) as client:
        assert client.classify(transactions[0])["transaction_id"] == "T-0"
        assert [d["transaction_id"] for d in client.classify(transactions[:3])] == ["T-0", "T-1", "T-2"]
        client._temp_dir.cleanup()  # BentoML leaves it to the garbage collector, which warns


def test_metrics_tell_what_happened(
    served: Served, client: httpx.Client, transactions: list[dict[str, Any]]
) -> None:
    concurrently(served, transactions[:400])
    classify(client, transactions)
    classify(client, b"nonsense")
    samples = metric_samples(client.get("/metrics").text)
    assert samples['fraud_refused_total{reason="not_json"}'] >= 1
    assert samples['fraud_requests_total{status="200"}'] >= 400
    assert samples["fraud_transactions_total"] >= 1600
    for decision in ("approve", "review", "decline"):
        assert samples[f'fraud_decisions_total{{decision="{decision}",release="7"}}'] > 0
    assert (
        samples['fraud_release_info{neural_net="fraud_neural_net:7",release="7",xgboost="fraud_xgboost:7"}']
        == 1
    )
    for stage in ("receive", "decode", "queue", "runners", "policy", "encode"):
        assert samples[f'fraud_stage_seconds_count{{stage="{stage}"}}'] > 0
    for name in ("fraud_score", "fraud_probability", "fraud_batch_rows", "fraud_request_seconds"):
        assert any(key.startswith(f"{name}_bucket") for key in samples)

    # Written once a second: what waited in the middle of the load may still stand there.
    def is_empty() -> bool:
        return metric_samples(client.get("/metrics").text)["fraud_queued_rows"] == 0

    wait_until(is_empty, 5, "transactions are queued although all are answered")
    assert samples["fraud_batch_requests_sum"] > samples["fraud_batch_requests_count"], "nothing was gathered"


def test_metrics_are_the_service_s_and_its_libraries_only(client: httpx.Client) -> None:
    """What is tried out at the start, to see how a library behaves, is not shown."""
    families = {line.split()[2] for line in client.get("/metrics").text.splitlines() if line[:7] == "# TYPE "}
    assert "fraud_transactions" in {name.removesuffix("_total") for name in families}
    assert {name.partition("_")[0] for name in families} <= {"fraud", "bentoml", "process", "python"}


def test_adaptive_batching_is_real(
    served: Served, client: httpx.Client, transactions: list[dict[str, Any]]
) -> None:
    """Under load some adaptive batches of both runners hold more than one call."""
    concurrently(served, transactions[:600])
    samples = metric_samples(client.get("/metrics").text)
    for runner in ("NeuralNetRunner", "XGBoostRunner"):
        total, batches = (
            sum(
                value
                for key, value in samples.items()
                if key.startswith(f"bentoml_service_adaptive_batch_size_{part}") and runner in key
            )
            for part in ("sum", "count")
        )
        assert total > batches > 0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"])
def test_other_methods_are_405(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/classify")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def raw_exchange(served: Served, request: bytes) -> bytes:
    """Send bytes as they are; return what comes back until the service closes or is silent."""
    address = urlsplit(served.url)
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=1) as connection:
        connection.sendall(request)
        with contextlib.suppress(TimeoutError):
            while chunk := connection.recv(65536):
                received += chunk
    return received


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST /classify HTTP/1.1\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-length: 1e3\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /classify?explain=%zz HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\r\n",
        b"POST /cl%61ssify HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /%ff%fe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /static_content/../../service.py HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /static_content/%2e%2e/%2e%2e/service.py HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_broken_http_is_never_a_5xx(served: Served, request_bytes: bytes) -> None:
    answer = raw_exchange(served, request_bytes)
    assert not re.match(rb"HTTP/1\.1 [25]", answer), answer[:200]


def test_pipelined_requests_are_answered_in_order(served: Served, transactions: list[dict[str, Any]]) -> None:
    head = (
        "POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
    )
    bodies = [encoded(row) for row in transactions[:5]]
    answer = raw_exchange(served, b"".join(head.format(len(body)).encode() + body for body in bodies))
    assert re.findall(rb'"transaction_id":"(T-\d)"', answer) == [b"T-0", b"T-1", b"T-2", b"T-3", b"T-4"]


def test_no_card_data_in_the_log(served: Served, client: httpx.Client, transaction: dict[str, Any]) -> None:
    secret = "4929123412341234"
    for body in (
        {**transaction, "V1": secret},
        {**transaction, "transaction_id": secret * 9},
        encoded({**transaction, "V1": 1})[:-1] + b"," + secret.encode(),
    ):
        answer = classify(client, body)
        assert answer.status_code == 400
        assert secret not in answer.text
    assert classify(client, {**transaction, "transaction_id": secret}).json()["transaction_id"] == secret
    assert secret not in served.log.read_text()
    assert "Traceback" not in served.log.read_text()
