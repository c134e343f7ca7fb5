"""Built, containerized, run: images against their budgets, the compose stack against crash and restart."""

import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from kafka import KafkaConsumer, TopicPartition

from tests.conftest import ROOT, home_variables
from tests.e2e import engine
from tests.e2e.engine import Container, Stack, docker, say, wait_until

# kafka-python reads its schemas with a function that Python 3.11 deprecates.
pytestmark = [pytest.mark.containers, pytest.mark.timeout(2400)]

TAG = "fraud_detection:containers-test"
HEAD = ROOT.parent / "shared" / "data" / "creditcard_head.parquet"
# Of the image above its base, MB; and of the start, s, on a machine that has nothing else to do.
SIZE_BUDGET_MB, START_BUDGET_S = 450, 5
UNWANTED = ("torch", "mlflow", "nvidia", "pip", "sklearn", "pandas", "pyarrow", "matplotlib")


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    if engine.find_docker() is None:
        pytest.skip("needs a Docker engine, and a client that can build with it")


@pytest.fixture(scope="module")
def image(release_home: Path) -> str:
    """Return the bento's image, built by the public commands."""
    return engine.build_bento(home_variables(release_home), TAG)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    """Yield the bento's image as it runs in a cluster."""
    container = Container(image, _port())
    yield container
    container.remove()


def _port() -> int:
    from demo.ports import choose_port

    return choose_port(0, {0})


@pytest.fixture(scope="module")
def transactions(release_home: Path) -> list[dict[str, Any]]:
    rows = pd.read_parquet(release_home / "held_out.parquet").head(1000)
    return [
        {name: value for name, value in row.items() if name not in ("Class", "sample_weight")}
        for row in rows.to_dict("records")
    ]


def test_image_is_small_and_holds_no_tools(image: str) -> None:
    above = engine.size_mb(image) - engine.size_mb(engine.BASE_IMAGE)
    say(f"image of the bento: {above:.0f} MB above {engine.BASE_IMAGE}")
    assert above <= SIZE_BUDGET_MB
    script = (
        "import os, shutil, json, sys;"
        "packages = os.listdir(next(path for path in sys.path if 'site-packages' in path));"
        "tools = [tool for tool in ('gcc', 'cc', 'git', 'nvcc') if shutil.which(tool)];"
        "print(json.dumps([os.getuid(), packages, tools]))"
    )
    uid, packages, tools = json.loads(docker("run", "--rm", "--entrypoint", "python", image, "-c", script))
    assert uid != 0
    assert not tools
    assert not [name for name in packages if name.split("-")[0].split(".")[0] in UNWANTED]


def test_it_starts_quickly(container: Container) -> None:
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    say(f"cold start: {container.ready_after_s:.1f} s (load {load:.1f} a core)")
    assert container.ready_after_s <= START_BUDGET_S * max(1.0, 2 * load)


def test_it_answers_like_the_service_outside(
    container: Container, served_bento: str, transactions: list[dict[str, Any]]
) -> None:
    inside, outside = (
        httpx.post(f"{url}/classify", json=transactions, timeout=30).json()
        for url in (container.url, served_bento)
    )
    assert len(inside) == len(transactions)
    for ours, theirs in zip(inside, outside, strict=True):
        assert {k: v for k, v in ours.items() if k not in ("scores", "fraud_probability")} == {
            k: v for k, v in theirs.items() if k not in ("scores", "fraud_probability")
        }
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-6)
        assert ours["fraud_probability"] == pytest.approx(theirs["fraud_probability"], abs=1e-6)
    one = httpx.post(f"{container.url}/classify", json=transactions[0], timeout=30).json()
    assert one["decision"] == inside[0]["decision"]


def test_the_engine_finds_it_healthy(container: Container) -> None:
    wait_until(
        lambda: engine.inspect(container.name)["State"]["Health"]["Status"] == "healthy", 60, "healthy"
    )


def test_sigterm_drains(image: str, transactions: list[dict[str, Any]]) -> None:
    container = Container(image, _port())
    outcomes: Counter[str] = Counter()

    def ask() -> None:
        # Reasons take long: every caller's request is under way when the signal comes.
        url = f"{container.url}/classify?explain=true"
        outcomes[str(httpx.post(url, json=transactions, timeout=60).status_code)] += 1

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(1)
    began = time.monotonic()
    docker("stop", "-t", "20", container.name)
    took = time.monotonic() - began
    for caller in callers:
        caller.join(60)
    code = engine.inspect(container.name)["State"]["ExitCode"]
    container.remove()
    say(f"stopped in {took:.1f} s with {code}, answers {dict(outcomes)}")
    assert code == 0
    assert took < 15
    assert outcomes == {"200": len(callers)}


@pytest.fixture(scope="module")
def stack(release_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Yield the compose stack, up and healthy."""
    if engine.find_compose() is None:
        pytest.skip("needs Docker Compose")
    if missing := engine.find_missing_image():
        pytest.skip(f"{missing} is not here and cannot be pulled")
    folder = tmp_path_factory.mktemp("stack")
    folder.chmod(0o755)  # the containers' user reads it
    shutil.copy(release_home / "transactions.parquet", folder)
    shutil.copy(HEAD if HEAD.exists() else release_home / "held_out.parquet", folder / "replay.parquet")
    for file in folder.iterdir():
        file.chmod(0o644)
    names = ("KAFKA_PORT", "MLFLOW_PORT", "SERVICE_PORT", "BRIDGE_PORT", "PROMETHEUS_PORT")
    stack = Stack(folder, {name: _port() for name in names})
    try:
        stack("build", "mlflow", "service", "bridge", "replay")
        began = time.monotonic()
        stack.up()
        say(f"stack up, first release trained, all healthy: {time.monotonic() - began:.0f} s")
        yield stack
    except BaseException:
        say(stack("logs", "--tail", "30"))
        raise
    finally:
        stack("down", "-v", "--remove-orphans")


def read(stack: Stack, topic: str) -> list[Any]:
    """Return every record of `topic` that a `read_committed` reader sees."""
    consumer = KafkaConsumer(
        bootstrap_servers=f"127.0.0.1:{stack.ports['KAFKA_PORT']}",
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        records: list[Any] = []
        deadline = time.monotonic() + 60
        while any(consumer.position(one) < ends[one] for one in partitions) and time.monotonic() < deadline:
            for batch in consumer.poll(timeout_ms=500, max_records=5000).values():
                records += batch
        return records
    finally:
        consumer.close()


def decided(stack: Stack) -> Counter[tuple[str, int, int]]:
    """Return how often each source was decided or given up."""
    sources: Counter[tuple[str, int, int]] = Counter()
    for record in read(stack, "decisions"):
        source = json.loads(record.value)["source"]
        sources[source["topic"], source["partition"], source["offset"]] += 1
    for record in read(stack, "transactions.dead-letter"):
        headers = {name: value.decode() for name, value in record.headers}
        sources[headers["error.topic"], int(headers["error.partition"]), int(headers["error.offset"])] += 1
    return sources


def test_stack_tells_how_it_is(stack: Stack) -> None:
    release = httpx.get(stack.url("SERVICE_PORT", "/info"), timeout=10).json()["release"]
    champion = httpx.get(
        stack.url("MLFLOW_PORT", "/api/2.0/mlflow/registered-models/alias"),
        params={"name": "fraud-detector", "alias": "champion"},
        timeout=30,
    ).json()
    assert champion["model_version"]["version"] == release
    query = stack.url("PROMETHEUS_PORT", "/api/v1/query")

    def targets_up() -> bool:
        found = httpx.get(query, params={"query": 'up{job=~"service|bridge"}'}, timeout=10).json()
        return [one["value"][1] for one in found["data"]["result"]] == ["1", "1"]

    wait_until(targets_up, 60, "both scraped")
    rules = httpx.get(stack.url("PROMETHEUS_PORT", "/api/v1/rules"), timeout=10).json()["data"]["groups"]
    assert all(rule["health"] != "err" for group in rules for rule in group["rules"])


def test_a_killed_service_comes_back_and_nothing_is_lost(stack: Stack) -> None:
    sent = len(pd.read_parquet(Path(stack._files[-1]).parent / "replay.parquet", columns=["Time"]))
    before = stack.container("service")
    replay = threading.Thread(
        target=stack,
        args=("run", "--rm", "-T", "replay", "replay", "--data", "/in/replay.parquet", "--rate", "1000"),
    )
    replay.start()
    wait_until(lambda: decided_at_all(stack), 120, "first decisions")
    stack.kill("service")
    killed = time.monotonic()
    wait_until(lambda: answers_again(stack), 120, "service back")
    back = time.monotonic() - killed
    replay.join(180)
    assert not replay.is_alive()
    assert stack.container("service")["RestartCount"] == before["RestartCount"] + 1
    inputs = {(one.topic, one.partition, one.offset) for one in read(stack, "transactions")}
    assert len(inputs) == sent
    wait_until(lambda: len(decided(stack)) == sent, 180, "everything decided")
    sources = decided(stack)
    say(
        f"replayed {sent}: {len(sources)} decided or dead letters, {sent - len(sources)} lost, "
        f"{sum(sources.values()) - len(sources)} duplicate; killed service back after {back:.1f} s"
    )
    assert set(sources) == inputs
    assert set(sources.values()) == {1}


def decided_at_all(stack: Stack) -> bool:
    text = httpx.get(stack.url("BRIDGE_PORT", "/metrics"), timeout=5).text
    return "bridge_records_decided_total{" in text


def answers_again(stack: Stack) -> bool:
    return engine.answers(stack.url("SERVICE_PORT", "/readyz"))


def test_decisions_on_the_topic_are_the_services(stack: Stack) -> None:
    inputs = {
        (one.topic, one.partition, one.offset): json.loads(one.value) for one in read(stack, "transactions")
    }
    decisions = [json.loads(record.value) for record in read(stack, "decisions")][:500]
    asked = [inputs[tuple(one["source"].values())] for one in decisions]
    again = httpx.post(stack.url("SERVICE_PORT", "/classify"), json=asked, timeout=30).json()
    for was, now in zip(decisions, again, strict=True):
        assert (was["transaction_id"], was["decision"]) == (now["transaction_id"], now["decision"])
        assert was["scores"] == pytest.approx(now["scores"], abs=1e-6)


def test_down_and_up_keeps_everything(stack: Stack) -> None:
    release = httpx.get(stack.url("SERVICE_PORT", "/info"), timeout=10).json()["release"]
    before = decided(stack)
    stack("down")
    stack.up()
    assert httpx.get(stack.url("SERVICE_PORT", "/info"), timeout=10).json()["release"] == release
    assert decided(stack) == before
    wait_until(lambda: decided(stack) == before, 10, "nothing decided again")


def test_upgrade_and_rollback(stack: Stack) -> None:
    def served() -> str:
        stack("restart", "service")
        wait_until(lambda: answers_again(stack), 120, "service ready")
        return str(httpx.get(stack.url("SERVICE_PORT", "/info"), timeout=10).json()["release"])

    first = served()
    train = ("train", "--data", "/in/transactions.parquet", "--epochs", "2", "--seed", "11", "--force")
    stack("run", "--rm", "-T", "train", *train)
    second = served()
    assert second != first
    stack("run", "--rm", "-T", "train", "rollback")
    assert served() == first


def test_other_images_are_small(stack: Stack) -> None:
    base = engine.size_mb(engine.BASE_IMAGE)
    sizes = {
        name: engine.size_mb(f"fraud-detection-{name}:latest") - base
        for name in ("service", "bridge", "replay", "training")
    }
    say("MB above the base: " + ", ".join(f"{name} {size:.0f}" for name, size in sizes.items()))
    assert sizes["service"] <= SIZE_BUDGET_MB
    assert sizes["bridge"] <= 80
