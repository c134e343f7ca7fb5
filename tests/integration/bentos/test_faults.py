"""A served bento under load and with its runners killed, frozen or drowned: 200 or 503, never a hang."""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil

from tests.e2e.faults import wait_until
from tests.serving_fixtures import Served, encoded, metric_samples

JSON = {"content-type": "application/json"}
Serve = Callable[..., Served]


def runner(served: Served, name: str) -> psutil.Process:
    """Return the process of a runner."""
    for process in psutil.Process(served.process.pid).children(recursive=True):
        if name in process.cmdline():
            return process
    raise AssertionError(f"{name} does not run")


def classify(served: Served, body: Any, timeout: float = 20) -> httpx.Response:
    return httpx.post(f"{served.url}/classify", content=encoded(body), headers=JSON, timeout=timeout)


def wait_for(status: int, served: Served, body: Any, timeout_s: float) -> float:
    """Ask until the answer has `status`; return how long it took. Anything but 200 and 503 fails."""
    started = time.monotonic()
    while time.monotonic() - started < timeout_s:
        answer = classify(served, body)
        assert answer.status_code in (200, 503)
        if answer.status_code == status:
            return time.monotonic() - started
        time.sleep(0.1)
    raise AssertionError(f"no {status} within {timeout_s} s")


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_killed_runners_give_503_and_come_back_by_themselves(
    serve: Serve, transaction: dict[str, Any]
) -> None:
    served = serve({"BENTOML_CONTAINERIZED": "true"})
    before = classify(served, transaction).json()
    for process in [runner(served, name) for name in ("NeuralNetRunner", "XGBoostRunner")]:
        process.kill()
    answer = classify(served, transaction)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["detail"] == []
    assert httpx.get(f"{served.url}/readyz", timeout=5).status_code == 503
    assert httpx.get(f"{served.url}/livez", timeout=5).status_code == 200
    wait_for(200, served, transaction, timeout_s=60)
    assert classify(served, transaction).json() == before
    assert httpx.get(f"{served.url}/readyz", timeout=5).status_code == 200


def test_a_frozen_runner_gives_503_within_the_deadline_and_goes_on_when_thawed(
    serve: Serve, transaction: dict[str, Any]
) -> None:
    served = serve({"SERVING__GATEWAY__DEADLINE_MS": "500"})
    before = classify(served, transaction).json()
    with frozen(runner(served, "XGBoostRunner")):
        started = time.monotonic()
        assert classify(served, transaction).status_code == 503
        assert time.monotonic() - started < 3
        answer = classify(served, transaction)  # known to be down: it fails at once, not by the deadline
        assert (answer.status_code, answer.json()["error"]) == (
            503,
            "The xgboost runner is being started again.",
        )
        explained = httpx.post(
            f"{served.url}/classify?explain=true", content=encoded(transaction), headers=JSON, timeout=20
        )
        assert explained.status_code == 503
    wait_for(200, served, transaction, timeout_s=20)
    assert classify(served, transaction).json() == before


def test_who_hangs_up_and_asks_again_is_counted_once(serve: Serve, transaction: dict[str, Any]) -> None:
    """A bridge gives up a request that takes too long, and sends it again."""
    served = serve({"SERVING__GATEWAY__DEADLINE_MS": "60000"})
    body, address = encoded(transaction), httpx.URL(served.url)
    head = (
        f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )

    def counted(name: str) -> float:
        return metric_samples(httpx.get(f"{served.url}/metrics", timeout=20).text)[name]

    gone, decided = 'fraud_refused_total{reason="client_gone"}', "fraud_transactions_total"
    before = counted(decided)
    with frozen(runner(served, "NeuralNetRunner")):
        with socket.create_connection((address.host, address.port or 80)) as caller:
            caller.sendall(f"{head}\r\n\r\n".encode() + body)
            wait_until(
                lambda: counted("fraud_batches_in_flight") == 1, 60, "the request is not being decided"
            )
        time.sleep(0.1)
    wait_until(lambda: counted(gone) == 1, 60, "nobody noticed that the caller had gone")
    assert counted(decided) == before
    assert classify(served, transaction).status_code == 200
    assert counted(decided) == before + 1


def test_beyond_the_queue_503_comes_quickly(serve: Serve, transactions: list[dict[str, Any]]) -> None:
    served = serve(
        {
            "SERVING__GATEWAY__MAX_QUEUED_ROWS": "100",
            "SERVING__GATEWAY__DEADLINE_MS": "1500",
            "SERVING__GATEWAY__MAX_BATCHES_IN_FLIGHT": "1",
        }
    )
    with frozen(runner(served, "NeuralNetRunner")):
        answers = asyncio.run(burst(served, [transactions[:90]] * 8))
    assert {status for status, _, _ in answers} == {503}
    assert all(retry for _, _, retry in answers)
    assert sorted(seconds for _, seconds, _ in answers)[4] < 1, "most are refused at once"
    wait_for(200, served, transactions[:90], timeout_s=20)


def test_at_512_connections_only_200_or_503(served: Served, transactions: list[dict[str, Any]]) -> None:
    answers = asyncio.run(burst(served, [transactions[n % 1200] for n in range(640)], connections=512))
    counted = Counter(status for status, _, _ in answers)
    assert set(counted) <= {200, 503}
    assert counted[200] > 0
    assert max(seconds for _, seconds, _ in answers) < 15


async def burst(served: Served, bodies: list[Any], connections: int = 64) -> list[tuple[int, float, str]]:
    """Send the bodies over so many connections at once; return status, seconds and Retry-After of each."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    waiting = iter(bodies)
    answers: list[tuple[int, float, str]] = []

    async def caller(client: httpx.AsyncClient) -> None:
        for body in waiting:
            content = encoded(body)
            started = time.monotonic()
            answer = await client.post(f"{served.url}/classify", content=content, headers=JSON)
            seconds = time.monotonic() - started
            answers.append((answer.status_code, seconds, answer.headers.get("retry-after", "")))

    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        await asyncio.gather(*(caller(client) for _ in range(connections)))
    return answers


def test_sigterm_answers_what_is_under_way(serve: Serve, transactions: list[dict[str, Any]]) -> None:
    """As in a container, where BentoML by itself would start no dead runner again."""
    served = serve({"BENTOML_CONTAINERIZED": "true"})

    async def run() -> list[int]:
        async with httpx.AsyncClient(timeout=30) as client:
            posts = [
                asyncio.ensure_future(
                    client.post(f"{served.url}/classify", content=encoded(transactions), headers=JSON)
                )
                for _ in range(4)
            ]
            await asyncio.sleep(0.1)
            os.kill(served.process.pid, signal.SIGTERM)
            answers = await asyncio.gather(*posts, return_exceptions=True)
        return [answer.status_code for answer in answers if not isinstance(answer, BaseException)]

    assert set(asyncio.run(run())) == {200}
    deadline = time.monotonic() + 20
    while served.process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
