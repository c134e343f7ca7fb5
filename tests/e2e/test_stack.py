"""The compose stack on a real engine: crash, restart, upgrade, keys, and every record accounted for."""

import json
import os
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from demo.ports import choose_port
from tests.conftest import ROOT, home_variables
from tests.e2e import engine
from tests.e2e.engine import Stack, docker, say, wait_until
from tests.integration.deployment.test_prometheus import VARIABLES, expressions

# kafka-python reads its schemas with a function that Python 3.11 deprecates.
pytestmark = [pytest.mark.containers, pytest.mark.timeout(2400)]

# `make containers DATA=file`: what is replayed; without it the part that the release never saw.
DATA = os.environ.get("DATA", "")
PORTS = (
    *("KAFKA_PORT", "MLFLOW_PORT", "SERVICE_PORT", "BRIDGE_PORT", "MONITOR_PORT"),
    *("PROMETHEUS_PORT", "ALERTMANAGER_PORT"),
)
# Of images above their base, MB.
SIZES_MB = {"service": 450, "bridge": 80, "replay": 250}
# A day has not passed, nobody was refused; no challenger, control sample, gap or alarm of the monitor yet.
NOT_YET = (
    *("offset 1d", ":drift1d", 'role="challenger"', "monitor_shadow_", 'figure="control_', "records_skipped"),
    *("missed_records", "topics_made_again", "monitor_alarms_total", "fraud_refused_total"),
)
NOT_FOR_STREAMING = {"bentoml", "torch", "mlflow", "xgboost", "onnxruntime", "sklearn", "scipy"}


@pytest.fixture(scope="module")
def stack(release_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Yield the compose stack, up and healthy."""
    if engine.find_docker() is None:
        pytest.skip("needs a Docker engine, and a client that can build with it")
    if engine.find_compose() is None:
        pytest.skip("needs Docker Compose")
    if missing := engine.find_missing_image():
        pytest.skip(f"{missing} is not here and cannot be pulled")
    folder = tmp_path_factory.mktemp("stack")
    folder.chmod(0o755)  # the containers' user reads it
    shutil.copy(release_home / "transactions.parquet", folder)
    shutil.copy(DATA or release_home / "held_out.parquet", folder / "replay.parquet")
    for file in folder.iterdir():
        file.chmod(0o644)
    taken: set[int] = {0}
    for _ in PORTS:
        taken.add(choose_port(0, taken))
    stack = Stack(folder, dict(zip(PORTS, taken - {0}, strict=True)))
    try:
        stack("build", "mlflow", "service", "bridge", "monitor", "replay")
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


def ask_prometheus(stack: Stack, query: str, at: float | None = None) -> list[Any]:
    """Return the result of an instant query, now or `at` a time."""
    parameters: dict[str, Any] = {"query": query} | ({"time": at} if at else {})
    answer = httpx.get(stack.url("PROMETHEUS_PORT", "/api/v1/query"), params=parameters, timeout=10)
    result: list[Any] = answer.raise_for_status().json()["data"]["result"]
    return result


def test_everything_that_runs_is_healthy(stack: Stack) -> None:
    def unhealthy() -> list[str]:
        states = [engine.inspect(container) for container in stack("ps", "-q").split()]
        running = [state for state in states if state["State"]["Running"]]
        assert len(running) >= 6  # and Alertmanager, where its image is
        return [one["Name"] for one in running if one["State"]["Health"]["Status"] != "healthy"]

    wait_until(lambda: not unhealthy(), 60, "all healthy")


def test_nobody_is_root_and_nothing_is_kept_that_is_not_needed(stack: Stack) -> None:
    for service in ("kafka", "mlflow", "service", "bridge", "prometheus"):
        container = stack.container(service)
        assert container["Config"]["User"] not in ("", "root", "0"), service
        assert container["HostConfig"]["CapDrop"] == ["ALL"], service
        assert container["HostConfig"]["NanoCpus"] > 0 and container["HostConfig"]["Memory"] > 0, service


def test_stack_tells_how_it_is(stack: Stack) -> None:
    release = httpx.get(stack.url("SERVICE_PORT", "/info"), timeout=10).json()["release"]
    assert champion(stack)["version"] == release

    def targets_up() -> bool:
        found = ask_prometheus(stack, 'up{job=~"service|bridge"}')
        return [one["value"][1] for one in found] == ["1", "1"]

    wait_until(targets_up, 60, "both scraped")
    rules = httpx.get(stack.url("PROMETHEUS_PORT", "/api/v1/rules"), timeout=10).json()["data"]["groups"]
    assert all(rule["health"] != "err" for group in rules for rule in group["rules"])


def test_a_killed_service_comes_back_and_nothing_is_lost(stack: Stack) -> None:
    sent = len(pd.read_parquet(stack.folder / "replay.parquet", columns=["Time"]))
    rate = str(max(100, sent // 60))  # slow enough that it goes on while the service is away
    before = stack.container("service")
    replay = threading.Thread(
        target=stack,
        args=("run", "--rm", "-T", "replay", "replay", "--data", "/in/replay.parquet", "--rate", rate),
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


def test_every_expression_is_answered(stack: Stack) -> None:
    """Each panel shows something once there was something to show; rules and alerts are understood."""
    show_something(stack)
    alerts = {rule["name"] for rule in firing_rules(stack)}

    def empty() -> dict[str, str]:
        return {
            place: expression
            for place, expression in expressions().items()
            if place not in alerts and not any(part in expression for part in NOT_YET)
            if not ask_prometheus(stack, with_values(without_filter(expression)))
        }

    try:
        wait_until(lambda: not empty(), 240, "all panels filled")
    except AssertionError:
        say("\n".join(f"{place}: {expression}" for place, expression in empty().items()))
        raise


def show_something(stack: Stack) -> None:
    """Send what the replay does not: a record that is none, a question for reasons, labels."""
    broker = f"127.0.0.1:{stack.ports['KAFKA_PORT']}"
    producer = KafkaProducer(bootstrap_servers=broker)
    producer.send("transactions", b"{broken").get(30)
    producer.close()
    transaction = json.loads(read(stack, "transactions")[0].value)
    url = stack.url("SERVICE_PORT", "/classify?explain=true")
    assert httpx.post(url, json=transaction, timeout=30).status_code == 200
    decisions = [json.loads(record.value) for record in read(stack, "decisions")]
    rows = [f"{one['transaction_id']},{int(one['decision'] != 'approve')}\n" for one in decisions[1:]]
    labels = stack.folder / "labels.csv"
    labels.write_text("".join(["transaction_id,Class\n", f"{decisions[0]['transaction_id']},1\n", *rows]))
    engine.run(
        *(sys.executable, "-m", "streaming", "label", "--data", labels),
        env={"KAFKA_BOOTSTRAP_SERVERS": broker},
    )


def firing_rules(stack: Stack) -> list[dict[str, Any]]:
    groups = httpx.get(stack.url("PROMETHEUS_PORT", "/api/v1/rules"), timeout=10).json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"] if rule["type"] == "alerting"]


def without_filter(expression: str) -> str:
    """Return `expression` without the part that leaves out of a legend what did not occur."""
    return re.sub(r" and on \([^)]+\) sum by \([^)]+\) \(increase\(.*\$__range\]\)\) > 0$", "", expression)


def with_values(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, "5m" if value == "1m" else value)
    return expression


def test_down_and_up_keeps_everything(stack: Stack) -> None:
    known, then = identity(stack), time.time() - 10  # so that what was scraped by then is stored
    before = decided(stack)
    shown = ask_prometheus(stack, "sum(bridge_records_decided_total)", then)
    assert before and float(shown[0]["value"][1]) > 0
    stack("down")
    stack.up()
    assert identity(stack) == known
    assert ask_prometheus(stack, "sum(bridge_records_decided_total)", then) == shown
    # The bridge goes on behind what it had committed: one record more, and none of the old ones again.
    send_one(stack)
    wait_until(lambda: len(decided(stack)) == len(before) + 1, 60, "the record after the restart decided")
    after = decided(stack)
    assert not before - after
    assert set(after.values()) == {1}


def identity(stack: Stack) -> tuple[str, str, str]:
    """Return what is served, the training that made it, and what the registry calls champion."""
    info = httpx.get(stack.url("SERVICE_PORT", "/info"), timeout=10).json()
    return info["release"], info["training_run_id"], champion(stack)["run_id"]


def champion(stack: Stack) -> dict[str, Any]:
    answer = httpx.get(
        stack.url("MLFLOW_PORT", "/api/2.0/mlflow/registered-models/alias"),
        params={"name": "fraud-detector", "alias": "champion"},
        timeout=30,
    )
    version: dict[str, Any] = answer.raise_for_status().json()["model_version"]
    return version


def send_one(stack: Stack) -> None:
    stack(
        "run", "--rm", "-T", "--no-deps", "replay", "replay", "--data", "/in/replay.parquet", "--limit", "1"
    )


def served_release(stack: Stack) -> str:
    return str(httpx.get(stack.url("SERVICE_PORT", "/info"), timeout=10).json()["release"])


def test_upgrade_and_rollback_reach_the_running_service(stack: Stack) -> None:
    first, container = served_release(stack), stack.container("service")["Id"]
    train = ("train", "--data", "/in/transactions.parquet", "--epochs", "2", "--seed", "11", "--force")
    stack("run", "--rm", "-T", "train", *train)
    wait_until(lambda: served_release(stack) != first, 10, "the new release served")
    stack("run", "--rm", "-T", "train", "rollback")
    wait_until(lambda: served_release(stack) == first, 10, "the old release served again")
    assert stack.container("service")["Id"] == container


def test_a_training_on_the_host_writes_to_the_same_registry(stack: Stack, tmp_path: Path) -> None:
    before = champion(stack)["version"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"http://localhost:{stack.ports['MLFLOW_PORT']}",
        "BENTOML_HOME": str(tmp_path / "bentoml"),
    }
    data = ("--data", str(stack.folder / "transactions.parquet"))
    train = ("train", *data, "--protocol", "temporal", "--epochs", "2", "--seed", "12", "--force")
    engine.run(sys.executable, "-m", "training", *train, env=environment)
    assert champion(stack)["version"] != before
    stack("run", "--rm", "-T", "train", "import")
    wait_until(lambda: served_release(stack) == champion(stack)["version"], 10, "the champion served")


def test_a_challenger_in_shadow_decides_beside_the_champion(stack: Stack) -> None:
    """The monitor compares the two; nobody else sees what the challenger decides."""
    champion_then, decided_then = served_release(stack), len(decided(stack))
    train = ("train", "--data", "/in/transactions.parquet", "--epochs", "2", "--seed", "13", "--challenge")
    stack("run", "--rm", "-T", "train", *train)
    stack("run", "--rm", "-T", "train", "import", "--challenger")
    shadow, names = stack.variant(COMPOSE_PROFILES="shadow"), ("service-shadow", "bridge-shadow")
    shadow("up", "-d", *names)
    for name in names:
        wait_until(lambda name=name: shadow.health(name) == "healthy", 120, f"{name} healthy")
    replay = ("replay", "--data", "/in/replay.parquet", "--limit", "300")
    stack("run", "--rm", "-T", "--no-deps", "replay", *replay)
    wait_until(lambda: compared(stack) >= 300, 120, "300 transactions compared")
    say(f"champion {champion_then} and its challenger: {compared(stack)} transactions compared")
    assert served_release(stack) == champion_then
    assert len(decided(stack)) == decided_then + 300

    def shadow_targets_up() -> bool:
        found = ask_prometheus(stack, 'up{environment="shadow"}')
        return sorted(one["metric"]["job"] for one in found if one["value"][1] == "1") == [
            "bridge",
            "service",
        ]

    wait_until(shadow_targets_up, 60, "the shadow scraped as an environment of its own")
    shadow("rm", "-s", "-f", *names)


def compared(stack: Stack) -> int:
    """Return how many transactions the monitor has seen decided by champion and challenger."""
    quality = httpx.get(stack.url("MONITOR_PORT", "/quality.json"), timeout=10).json()
    return quality["shadow"]["windows"]["since_release"]["compared"] if quality["shadow"] else 0


def test_an_alert_reaches_the_log_and_ends(stack: Stack) -> None:
    if not engine.is_here(engine.ALERTMANAGER):
        pytest.skip(f"{engine.ALERTMANAGER} is not here and cannot be pulled")
    firing, resolved = (f"page {state} local ServiceDown" for state in ("firing", "resolved"))
    # It fired at the start too, while the first release was trained.
    wait_until(lambda: len(alerts(stack, resolved)) == len(alerts(stack, firing)), 400, "what fired is over")
    before = len(alerts(stack, firing))
    stack("stop", "service")
    wait_until(lambda: len(alerts(stack, firing)) > before, 240, "the alert")
    stack("start", "service")
    wait_until(lambda: stack.health("service") == "healthy", 120, "service healthy")
    ended = 'ALERTS{alertname="ServiceDown", environment="local"}'
    wait_until(lambda: not ask_prometheus(stack, ended), 60, "the alert's end")


def alerts(stack: Stack, beginning: str) -> list[str]:
    """Return the lines of the container that prints alerts which hold `beginning`."""
    return [line for line in stack("logs", "--no-color", "alert-log").splitlines() if beginning in line]


def test_the_bentos_own_image_takes_the_place_of_the_service(stack: Stack, release_home: Path) -> None:
    image = engine.build_bento(home_variables(release_home), "fraud_detection:containers-test")
    before_training = identity(stack)[1]
    own = stack.variant(SERVICE_IMAGE=image)
    own("up", "-d", "--no-deps", "service")
    wait_until(lambda: stack.health("service") == "healthy", 60, "the bento's image healthy")
    assert stack.container("service")["Config"]["Image"] == image
    assert identity(stack)[1] != before_training, "it serves the release inside it"
    before = len(decided(stack))
    send_one(stack)
    wait_until(lambda: len(decided(stack)) == before + 1, 60, "decided by the bento's image")
    newest = max(
        (json.loads(one.value) for one in read(stack, "decisions")), key=lambda one: one["decided_at_ms"]
    )
    assert newest["release"] == httpx.get(stack.url("SERVICE_PORT", "/info"), timeout=10).json()["release"]
    stack("up", "-d", "--no-deps", "service")  # and back
    wait_until(lambda: stack.health("service") == "healthy", 60, "the stack's own image healthy")


def test_with_keys_only_who_has_one_is_answered(stack: Stack, transactions: list[dict[str, Any]]) -> None:
    folder = stack.folder / "secrets"
    folder.mkdir(mode=0o700)
    for name in ("api-key", "api-keys"):
        (folder / name).write_text("a-key-for-this-test\n")
        (folder / name).chmod(0o644)  # as the recipe says: the containers' user reads them
    override = stack.folder / "secured.yml"
    recipe = ROOT / "configs" / "docker" / "secured.yml"
    override.write_text(recipe.read_text().replace("./secrets/", f"{folder}/"))
    before = len(decided(stack))
    secured = stack.variant(str(override))
    secured("up", "-d", "service", "bridge")
    for name in ("service", "bridge"):
        wait_until(lambda name=name: stack.health(name) == "healthy", 120, f"{name} healthy")
    url = stack.url("SERVICE_PORT", "/classify")
    assert httpx.post(url, json=transactions[0], timeout=30).status_code == 401
    assert ask(url, transactions[0], "a-key-for-this-test") == 200
    send_one(stack)
    wait_until(lambda: len(decided(stack)) == before + 1, 60, "decided with the key")
    rotate(secured, folder)
    assert ask(url, transactions[0], "a-key-for-this-test") == 401
    send_one(stack)
    wait_until(lambda: len(decided(stack)) == before + 2, 60, "decided with the new key")
    assert set(decided(stack).values()) == {1}


def rotate(secured: Stack, folder: Path) -> None:
    """Follow docs/operations.md: the new key beside the old, to the bridge, the old one out."""
    url = secured.url("SERVICE_PORT", "/classify")
    with (folder / "api-keys").open("a") as file:
        file.write("a-newer-key\n")
    wait_until(lambda: ask(url, {}, "a-newer-key") == 400, 30, "the new key taken")
    assert ask(url, {}, "a-key-for-this-test") == 400
    (folder / "api-key").write_text("a-newer-key\n")
    secured("up", "-d", "--no-deps", "--force-recreate", "bridge", "monitor")
    wait_until(lambda: secured.health("bridge") == "healthy", 60, "bridge healthy")
    (folder / "api-keys").write_text("a-newer-key\n")
    wait_until(lambda: ask(url, {}, "a-key-for-this-test") == 401, 30, "the old key refused")


def ask(url: str, transaction: dict[str, Any], key: str) -> int:
    """Return the status of an answer; a key that is accepted gets an empty object to its 400."""
    return httpx.post(url, json=transaction, headers={"X-API-Key": key}, timeout=30).status_code


def test_images_are_small_and_streaming_has_no_models(stack: Stack) -> None:
    base = engine.size_mb(engine.BASE_IMAGE)
    names = (*SIZES_MB, "training")
    sizes = {name: engine.size_mb(f"fraud-detection-{name}:latest") - base for name in names}
    say("MB above the base: " + ", ".join(f"{name} {size:.0f}" for name, size in sizes.items()))
    assert not [name for name, most in SIZES_MB.items() if sizes[name] > most]
    script = "import json, importlib.metadata as m; print(json.dumps([d.name for d in m.distributions()]))"
    for name in ("bridge", "replay"):
        command = ("run", "--rm", "--entrypoint", "python", f"fraud-detection-{name}:latest", "-c", script)
        assert not {found.lower() for found in json.loads(docker(*command))} & NOT_FOR_STREAMING, name
