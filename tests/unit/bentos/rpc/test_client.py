"""Calls to a runner over its socket, against runners that misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from bentos.classify.classifier import Classifier
from bentos.classify.decoding import Decoder
from bentos.errors import RunnerUnavailableError, ScoringFailedError
from bentos.metrics import Metrics
from bentos.policy import Calibration, DecisionRule, Thresholds
from bentos.releases.release import FEATURE_NAMES, Release
from bentos.rpc.client import RunnerClient
from bentos.settings.sections import LimitSettings

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ROW = bytes(120)
SCORE = np.array([0.25], "<f4").tobytes()
RELEASE = Release(
    "12",
    "12",
    "f",
    DecisionRule(Thresholds(0.5, 0.5)),
    Calibration(intercept=0.0, neural_net=1.0, xgboost=1.0, epsilon=1e-6),
    {},
    {},
)
(TRANSACTION,), _ = Decoder(LimitSettings(), 10).decode_fast(  # type: ignore[misc]  # it is sound
    json.dumps(dict.fromkeys(FEATURE_NAMES, 1.0)).encode()
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n" + SCORE


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 120 if head.startswith(b"POST") else 0
    return head + await reader.readexactly(length)


async def obedient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(ANSWER)


@asynccontextmanager
async def runner(handler: Handler, socket: Path) -> AsyncIterator[RunnerClient]:
    """Yield a client of a runner that treats every connection with `handler`."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_unix_server(handle, str(socket))
    client = RunnerClient("trees", f"file://{socket}", served=lambda: "12")
    try:
        yield client
    finally:
        client.close()
        # Connections that were just made are accepted first: a server that has closed would leave them open.
        await asyncio.sleep(0.02)
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.02)  # cancelled connections close in the next turns of the loop


async def test_scores_come_back(tmp_path: Path) -> None:
    async with runner(obedient, tmp_path / "s") as client:
        for _ in range(3):
            assert (await client.score("12", ROW)).tolist() == [0.25]


async def test_connections_are_kept_and_shared(tmp_path: Path) -> None:
    opened = []

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        await obedient(reader, writer)

    async with runner(counting, tmp_path / "s") as client:
        await asyncio.gather(*(client.score("12", ROW) for _ in range(4)))
        await asyncio.gather(*(client.score("12", ROW) for _ in range(4)))
    assert len(opened) == 4


async def test_an_idle_connection_the_runner_closed_is_replaced(tmp_path: Path) -> None:
    async def forgetful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    async with runner(forgetful, tmp_path / "s") as client:
        for _ in range(5):
            assert (await client.score("12", ROW)).tolist() == [0.25]


async def test_a_call_that_is_sent_again_is_counted_once(tmp_path: Path) -> None:
    """Over a connection that its runner has just closed; each call of the second batch is sent twice."""
    received: list[str] = []

    def closing(name: str) -> Handler:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            answered = 0
            while True:
                head = await read_request(reader)
                if head.startswith(b"POST"):
                    received.append(name)
                    if answered:
                        return  # closed without an answer to what was read
                    answered += 1
                writer.write(ANSWER)

        return handler

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    async with (
        runner(closing("neural_net"), tmp_path / "n") as network,
        runner(closing("xgboost"), tmp_path / "x") as trees,
    ):
        classifier = Classifier(RELEASE, network, trees, metrics)
        for _ in range(2):
            assert len(await classifier.decide([TRANSACTION], 1, 0.0)) == 1
    metrics.flush()
    value = registry.get_sample_value
    assert sorted(received) == ["neural_net"] * 3 + ["xgboost"] * 3
    assert [value(f"fraud_{name}_count") for name in ("batch_rows", "batch_requests", "probability")] == [
        2
    ] * 3
    assert value("fraud_score_count", {"model": "neural_net"}) == 2
    assert value("fraud_score_count", {"model": "xgboost"}) == 2
    assert value("fraud_stage_seconds_count", {"stage": "runners"}) == 2


async def test_an_answer_in_pieces_and_in_chunks(tmp_path: Path) -> None:
    async def hesitant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n" + SCORE[:1] + b"\r\n3\r\n"
        for piece in (text[:20], text[20:], SCORE[1:] + b"\r\n0\r\n\r\n"):
            writer.write(piece)
            await asyncio.sleep(0.01)

    async with runner(hesitant, tmp_path / "s") as client:
        assert (await client.score("12", ROW)).tolist() == [0.25]


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"no HTTP at all\r\n\r\n")


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(ANSWER[:-2])
    await writer.drain()


async def overloaded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


async def failing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


async def test_a_runner_that_fails_differs_from_one_that_is_busy(tmp_path: Path) -> None:
    async with runner(failing, tmp_path / "f") as client:
        with pytest.raises(ScoringFailedError):
            await asyncio.wait_for(client.score("12", ROW), 2)
    async with runner(overloaded, tmp_path / "o") as client:
        with pytest.raises(RunnerUnavailableError) as caught:
            await asyncio.wait_for(client.score("12", ROW), 2)
    assert caught.type is RunnerUnavailableError


@pytest.mark.parametrize("handler", [nonsense, resetting, half_an_answer, overloaded])
async def test_whatever_a_runner_does_the_caller_hears_unavailable(handler: Handler, tmp_path: Path) -> None:
    async with runner(handler, tmp_path / "s") as client:
        with pytest.raises(RunnerUnavailableError):
            await asyncio.wait_for(client.score("12", ROW), 2)


async def test_no_socket_is_unavailable(tmp_path: Path) -> None:
    client = RunnerClient("trees", f"file://{tmp_path}/none", served=lambda: "12")
    with pytest.raises(RunnerUnavailableError):
        await client.score("12", ROW)
    assert not await client.is_ready("12", 0.5)
    client.close()


async def test_after_a_failure_calls_fail_at_once_until_a_probe_is_answered(tmp_path: Path) -> None:
    changes: list[tuple[str, bool]] = []
    hangs = asyncio.Event()

    async def hanging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            if hangs.is_set():
                await asyncio.sleep(60)
            writer.write(ANSWER)

    async with runner(hanging, tmp_path / "s") as template:
        client = RunnerClient(
            "trees", template._url.geturl(), lambda: "12", lambda name, up: changes.append((name, up))
        )
        hangs.set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.score("12", ROW)
        with pytest.raises(RunnerUnavailableError):
            await asyncio.wait_for(client.score("12", ROW), 0.05)
        hangs.clear()
        async with asyncio.timeout(5):
            while len(changes) < 2:
                await asyncio.sleep(0.02)
        assert changes == [("trees", False), ("trees", True)]
        assert (await client.score("12", ROW)).tolist() == [0.25]
        client.close()


async def test_a_late_answer_is_never_taken_for_the_next(tmp_path: Path) -> None:
    """A cancelled exchange closes its connection: what still comes is no answer to a later call."""
    served = 0

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        while True:
            head = await read_request(reader)
            served += 1
            if served == 1:
                await asyncio.sleep(0.1)
            number = 0.75 if served == 1 else 0.25
            body = np.array([number], "<f4").tobytes() if head.startswith(b"POST") else b"1234"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n" + body)

    async with runner(late, tmp_path / "s") as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await client.score("12", ROW)
        await asyncio.sleep(0.3)
        assert (await client.score("12", ROW)).tolist() == [0.25]


async def test_reasons_that_take_too_long_say_nothing_about_scores(tmp_path: Path) -> None:
    """A deadline of reasons opened the circuit: ordinary callers got 503 from a runner that was well."""

    async def slow_to_explain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            if b"/contributions/" in request:
                await asyncio.sleep(30)
            writer.write(ANSWER)

    changes: list[bool] = []
    async with runner(slow_to_explain, tmp_path / "s") as client:
        client._on_change = lambda name, is_up: changes.append(is_up)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.contributions("12", ROW)
        assert (await client.score("12", ROW)).tolist() == [0.25]
    assert changes == []


async def test_calls_do_not_wait_for_a_process_that_has_died(tmp_path: Path) -> None:
    """The process manager keeps the socket: connections are made, and nobody answers on them."""
    deaf = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while True:
            await read_request(reader)
            if deaf.is_set():
                await asyncio.sleep(30)
            writer.write(ANSWER)

    async with runner(dying, tmp_path / "s") as client:
        assert (await client.score("12", ROW)).tolist() == [0.25]
        deaf.set()
        for writer in writers:
            writer.transport.abort()
        async with asyncio.timeout(1):
            with pytest.raises(RunnerUnavailableError):
                await client.score("12", ROW)
        with pytest.raises(RunnerUnavailableError, match="started again"):
            await client.score("12", ROW)


async def test_a_runner_that_died_before_the_first_call_is_asked_for_what_is_served(tmp_path: Path) -> None:
    """The probe asked for the version of the last call, and there was none: it was never answered."""
    deaf = asyncio.Event()
    heads: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if deaf.is_set():
                await asyncio.sleep(30)
            is_served = heads[-1].startswith(b"GET /ready/13 ")
            writer.write(b"HTTP/1.1 %d \r\ncontent-length: 0\r\n\r\n" % (200 if is_served else 503))

    changes: list[bool] = []
    async with runner(dying, tmp_path / "s") as client:
        client._served, client._on_change = lambda: "13", lambda name, is_up: changes.append(is_up)
        assert await client.is_ready("13", 1)
        deaf.set()
        for writer in writers:
            writer.transport.abort()
        async with asyncio.timeout(2):
            while changes != [False]:
                await asyncio.sleep(0.02)
        assert not await client.is_ready("13", 1)  # as long as calls are refused
        deaf.clear()
        async with asyncio.timeout(5):
            while changes != [False, True]:
                await asyncio.sleep(0.02)
        assert await client.is_ready("13", 1)
    assert {head.split()[1] for head in heads} == {b"/ready/13"}
