"""A challenger in shadow: one outcome for each transaction, and a champion that does not notice."""

import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import httpx
import pytest
import yaml

from demo.ports import HOST, accepts_connections, choose_port
from demo.processes import Process
from streaming.settings.load import load_settings
from tests.e2e.faults import World, read_topic, wait_until
from tests.e2e.verifier import Seen, verify

ROOT = Path(__file__).parent.parent.parent
SHADOW_FILE = ROOT / "configs" / "streaming-shadow.yaml"
pytestmark = pytest.mark.timeout(170)


def undated(records: list[Seen]) -> dict[int, list[tuple[bytes | None, bytes]]]:
    """Return each partition's keys and values, in order, without the time of the decision."""
    found: defaultdict[int, list[tuple[bytes | None, bytes]]] = defaultdict(list)
    for one in records:
        head, mark, tail = (one.value or b"").rpartition(b',"decided_at_ms":')
        assert mark and tail.rstrip(b"}").isdigit(), one
        found[one.partition].append((one.key, head))
    return found


def test_the_file_sets_apart_what_must_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    champion = load_settings()
    monkeypatch.setenv("STREAMING__CONFIG", str(SHADOW_FILE))
    shadow = load_settings()
    assert shadow.topics.input == champion.topics.input
    assert shadow.topics.output == champion.topics.shadow_decisions
    outputs = {champion.topics.output, champion.topics.dead_letter, champion.topics.input}
    assert not {shadow.topics.output, shadow.topics.dead_letter} & outputs
    assert shadow.bridge.group != champion.bridge.group
    assert shadow.service.classify_url != champion.service.classify_url
    assert shadow.metrics.port != champion.metrics.port
    document = yaml.safe_load(SHADOW_FILE.read_text())
    same = champion.model_dump(mode="json")
    for section, values in shadow.model_dump(mode="json").items():
        left_out = {key: value for key, value in values.items() if key not in document.get(section, {})}
        assert left_out == {key: same[section][key] for key in left_out}, section


def test_one_shadow_outcome_each_and_the_champion_does_not_notice(world: World) -> None:
    with world.feed(400) as feeder:
        wait_until(lambda: feeder.sent > 1500, 30, "nothing is fed")
    alone = world.output
    world.start_bridge("a")
    world.wait_drained(60)
    before = undated(read_topic(world.servers, alone))
    world.kill_bridge("a")
    # The same transactions again, now with a challenger beside: another group and other output topics.
    world.group += "-again"
    world.output, world.letters = world.output + "-again", world.letters + "-again"
    shadow = start_shadow(world)
    world.start_bridge("a")
    world.wait_drained(60)
    again = read_topic(world.servers, world.output)
    assert undated(again) == before
    assert sum(map(len, before.values())) > 1000
    judge_shadow(world, shadow)


SHADOW_TOPICS = (".shadow", ".shadow-dead")


def start_shadow(world: World) -> Process:
    """Start a second service, of another release, and the bridge of the shadow file with the test's names."""
    output, letters = (world.input + ending for ending in SHADOW_TOPICS)
    port = choose_port(13_500)
    service = [sys.executable, "-m", "tests.scripted_service", str(port)]
    challenger = Process("challenger", service, world.folder / "challenger.log").start()
    world.bridges["challenger"] = challenger
    challenger.wait_ready(lambda: accepts_connections(port), 30)
    httpx.post(f"http://{HOST}:{port}/script", json={"mode": "strict"}).raise_for_status()
    env = {
        **os.environ,
        "STREAMING__CONFIG": str(SHADOW_FILE),
        "STREAMING__BRIDGE__GROUP": f"{world.group}-shadow",
        "STREAMING__METRICS__PORT": "0",
    }
    command = [
        *(sys.executable, "-m", "streaming", "bridge", "--bootstrap-servers", world.servers),
        *("--classify-url", f"http://{HOST}:{port}/classify", "--input-topic", world.input),
        *("--output-topic", output, "--dead-letter-topic", letters),
    ]
    process = Process("shadow bridge", command, world.folder / "shadow.log", env, ROOT)
    world.bridges["shadow"] = process
    return process.start()


def judge_shadow(world: World, shadow: Process) -> None:
    inputs = read_topic(world.servers, world.input)
    output, letters = (world.input + ending for ending in SHADOW_TOPICS)

    def outcomes() -> int:
        return len(read_topic(world.servers, output)) + len(read_topic(world.servers, letters))

    wait_until(lambda: outcomes() >= len(inputs), 60, "the shadow has not decided everything", every_s=1)
    assert shadow.poll() is None
    decided = read_topic(world.servers, output)
    report = verify(inputs, decided, read_topic(world.servers, letters))
    assert not report.lost and not report.duplicate and not report.disordered, report
    assert {json.loads(one.value or b"{}")["release"] for one in decided} == {"8"}
