"""Whole commands as processes: bridge, replay, redrive, backfill against a broker and a scripted service."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from demo.ports import choose_port
from tests.e2e.bad_records import all_kinds, good
from tests.e2e.faults import World, read_topic, wait_until
from tests.e2e.verifier import verify
from tests.scripted_service import FEATURES

pytestmark = pytest.mark.timeout(120)


def run(world: World, *arguments: str, status: int = 0) -> str:
    """Run a command of the package; return what it prints."""
    command = [sys.executable, "-m", "streaming", *arguments, "--bootstrap-servers", world.servers]
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def produce(world: World, *records: tuple[bytes | None, bytes | None]) -> None:
    producer = KafkaProducer(bootstrap_servers=world.servers, max_request_size=10**8)
    for key, value in records:
        producer.send(world.input, key=key, value=value if key is not None or value is not None else b"")
    producer.flush(30)
    producer.close(timeout=5)


def write_rows(path: Path, rows: int) -> Path:
    lines = [",".join([*FEATURES, "Class"])]
    lines += [
        ",".join([*(str(round(n * 0.01 + i, 3)) for i in range(len(FEATURES))), "0"]) for n in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def finish(world: World) -> None:
    world.wait_drained(60)
    for bridge in world.bridges.values():
        if bridge.poll() is None:
            bridge.stop()


def test_a_replay_is_decided_record_for_record_and_shown_on_the_way(
    world_of_any_broker: World, tmp_path: Path
) -> None:
    world = world_of_any_broker
    port = choose_port(9464)
    bridge = world.start_bridge("a", METRICS__PORT=port)
    data = write_rows(tmp_path / "rows.csv", 3000)
    begun = time.monotonic()
    said = run(world, "replay", "--topic", world.input, "--data", str(data), "--rate", "1500")
    assert time.monotonic() - begun > 2.0
    assert said.startswith("3000 transactions in 2.")  # the rate to 1 % is the unit test's business
    world.wait_drained(60)
    assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200, 20, "not ready")
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    decided = [
        line.split() for line in metrics.splitlines() if line.startswith("bridge_records_decided_total")
    ]
    assert sum(float(value) for _, value in decided) == 3000
    bridge.stop()
    assert bridge.poll() == 0
    report = world.report()
    assert report.is_clean, report
    assert report.decided == 3000
    found = read_topic(world.servers, world.output)
    assert {seen.key for seen in found} == {str(number).encode() for number in range(1, 3001)}


def test_every_kind_of_bad_record_is_a_dead_letter_that_a_person_can_read(world: World) -> None:
    produce(
        world, *all_kinds(), *[(b"k", json.dumps(good(transaction_id=str(n))).encode()) for n in range(50)]
    )
    world.start_bridge("a")
    finish(world)
    report = world.report()
    assert report.is_clean, report
    assert report.dead_letters > 110
    for letter in read_topic(world.servers, world.letters):
        headers = {name: value.decode("utf-8") for name, value in letter.headers}
        assert headers["error.message"].endswith(
            (".", "number", "limits", "required", "object", "characters")
        )


def test_a_letter_too_large_for_its_topic_goes_without_its_bytes(world: World) -> None:
    large = b"{" + b"x" * 1_048_400
    produce(world, (b"large", large), (b"k", json.dumps(good()).encode()))
    world.start_bridge("a")
    finish(world)
    # The test made these topics, with Kafka's limit of 1 MiB: with its headers the letter is too large.
    (letter,) = read_topic(world.servers, world.letters)
    assert dict(letter.headers)["error.omitted"] == b"key,value"
    assert world.report().is_clean


def test_dead_letters_of_created_topics_have_room_for_the_largest_record(world: World) -> None:
    with_room = f"{world.letters}-with-room"
    world.letters = with_room
    large = b"{" + b"x" * 1_040_000
    produce(world, (b"large", large))
    world.start_bridge("a")
    finish(world)
    (letter,) = read_topic(world.servers, with_room)
    assert (letter.key, letter.value) == (b"large", large)


def test_sigterm_finishes_leaves_and_ends_with_0_at_once(world: World) -> None:
    bridge = world.start_bridge("a")
    with world.feed(500):
        world.wait_progress(200, 40)
        begun = time.monotonic()
        os.kill(bridge.pid, signal.SIGTERM)
        wait_until(lambda: bridge.poll() is not None, 12, "the bridge did not end")
        assert time.monotonic() - begun < 10
    assert bridge.poll() == 0
    begun = time.monotonic()
    world.start_bridge("another")
    world.wait_drained(30)
    assert time.monotonic() - begun < 15
    assert world.report().is_clean


def test_sigterm_ends_with_0_within_10_s_though_the_service_hangs(world: World) -> None:
    world.script("hang")
    bridge = world.start_bridge("a", SERVICE__REQUEST_TIMEOUT_S=60)
    produce(world, (b"k", json.dumps(good()).encode()))
    wait_until(lambda: world.requests() > 0, 30, "nothing asked")
    begun = time.monotonic()
    os.kill(bridge.pid, signal.SIGTERM)
    wait_until(lambda: bridge.poll() is not None, 12, "the bridge did not end")
    assert time.monotonic() - begun < 10
    assert bridge.poll() == 0
    assert not read_topic(world.servers, world.output)


def test_the_later_of_two_bridges_with_one_id_stays(world: World) -> None:
    first = world.start_bridge("a", BRIDGE__MEMBERSHIP_CHECK_S=0.5)
    with world.feed(200):
        world.wait_progress(100, 40)
        (world.folder / "a.log").rename(world.folder / "first.log")
        first.log = world.folder / "first.log"
        second = world.start_bridge("a")
        wait_until(lambda: first.poll() is not None, 30, "the first bridge did not notice")
        world.wait_progress(200, 40)
    assert first.poll() == 1
    assert "Another bridge runs under instance id a" in first.log.read_text()
    assert second.poll() is None
    world.wait_drained(40)
    assert world.report().is_clean


def test_a_refusal_ends_the_bridge_loudly(world: World) -> None:
    world.script("status", 401)
    bridge = world.start_bridge("a")
    produce(world, (b"k", json.dumps(good()).encode()))
    wait_until(lambda: bridge.poll() is not None, 40, "the bridge goes on")
    assert bridge.poll() == 1
    assert "The service answered 401" in bridge.log.read_text()
    assert not read_topic(world.servers, world.output)
    assert not read_topic(world.servers, world.letters)


def test_redrive_sends_each_letter_back_once(world: World) -> None:
    produce(world, (b"a", b"{"), (b"b", b"{}"), (b"c", None), (b"d", json.dumps(good()).encode()))
    world.start_bridge("a")
    finish(world)
    flags = ["--topic", world.input, "--dead-letter-topic", world.letters, "--group", world.group]
    dry = run(world, "redrive", *flags, "--dry-run")
    assert "dry run" in dry
    assert len(read_topic(world.servers, world.input)) == 4
    elsewhere = [*flags[2:], "--topic", world.output]
    assert "3 letters are of other topics" in run(world, "redrive", *elsewhere)
    run(world, "redrive", *flags, "--reason", "not_json")
    seen = read_topic(world.servers, world.input)
    assert Counter(one.value for one in seen)[b"{"] == 2
    assert [
        one.value for one in seen if dict(one.headers).get("redrive.topic") == world.letters.encode()
    ] == [b"{"]
    run(world, "redrive", *flags)
    run(world, "redrive", *flags)
    values = Counter(seen.value for seen in read_topic(world.servers, world.input))
    assert (values[b"{"], values[b"{}"], values[None]) == (2, 2, 2)


def test_backfill_decides_again_and_tells_what_changed(world: World, tmp_path: Path) -> None:
    records = [
        (str(n).encode(), json.dumps(good(Time=n, transaction_id=str(n))).encode()) for n in range(300)
    ]
    produce(world, *records, (b"bad", b"{"))
    world.start_bridge("a")
    finish(world)
    world.script("strict")
    again, report = f"{world.output}-again", tmp_path / "report.json"
    flags = ["--input-topic", world.input, "--output-topic", again, "--compare-topic", world.output]
    said = run(world, "backfill", *flags, "--classify-url", world.classify_url, "--report", str(report))
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["undecidable"] == {"parse: not_json": 1}
    assert found["unchanged"] + found["changed"] == 300
    assert found["changed"] > 0
    assert found["releases"] == {"8": 300}
    assert found["earlier_releases"] == {"7": 300}
    assert "release 8" in said
    decisions = read_topic(world.servers, again)
    assert len({json.dumps(json.loads(seen.value or b"")["source"]) for seen in decisions}) == 300
    world.script("ok")  # another release: what is decided stays, and the command says what to do
    repeated = run(world, "backfill", *flags, "--classify-url", world.classify_url, "--report", str(report))
    assert "300 of them were made by an earlier run" in repeated
    assert "another --output-topic" in repeated
    assert len(read_topic(world.servers, again)) == 300
    whole = json.loads(report.read_text())
    assert {**found, "decided_before": 300} == whole | {"examples": found["examples"]}
    assert len(whole["examples"]) == len(found["examples"])


def test_a_backfill_whose_report_has_no_folder_decides_nothing(world: World, tmp_path: Path) -> None:
    produce(world, (b"k", json.dumps(good()).encode()))
    again, report = f"{world.output}-again", str(tmp_path / "none" / "report.json")
    flags = ["--input-topic", world.input, "--output-topic", again, "--classify-url", world.classify_url]
    said = run(world, "backfill", *flags, "--report", report, status=1)
    assert "--report wants a file" in said
    assert "Traceback" not in said
    assert world.requests() == 0


def test_backfill_writes_over_no_topic_of_the_bridge(world: World) -> None:
    flags = ["--input-topic", world.input, "--compare-topic", world.output]
    for taken in (world.output, world.input):
        said = run(world, "backfill", *flags, "--output-topic", taken, status=2)
        assert "choose another topic" in said
    assert "--output-topic is missing" in run(world, "backfill", *flags, status=2)


def test_a_bridge_writes_to_topics_with_fewer_partitions(world: World) -> None:
    admin = KafkaAdminClient(bootstrap_servers=world.servers)
    world.output = f"{world.output}-narrow"
    admin.create_topics([NewTopic(world.output, 1, 1)])
    admin.close()
    produce(world, *[(str(n).encode(), json.dumps(good()).encode()) for n in range(40)])
    world.start_bridge("a")
    finish(world)
    inputs, letters = read_topic(world.servers, world.input), read_topic(world.servers, world.letters)
    report = verify(inputs, read_topic(world.servers, world.output, partitions=1), letters, 1)
    assert report.is_clean, report
    assert report.decided == 40
