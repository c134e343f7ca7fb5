"""A record that the service fails on: its partition stands, the others go on, and a person can skip it."""

import json
import subprocess
import sys

import pytest

from tests.e2e.faults import World, read_topic, wait_until

pytestmark = pytest.mark.timeout(170)


def test_one_record_holds_its_partition_until_it_is_skipped(world: World) -> None:
    world.script("poison", "-700")
    bridge = world.start_bridge("a")
    with world.feed(400, bad_share=0.0):
        world.wait_progress(3000, 90)
    wait_until(lambda: b"record_held" in bridge.log.read_bytes(), 60, "the record is not named")
    (line, *_) = [json.loads(line) for line in bridge.log.read_text().splitlines() if '"record_held"' in line]
    partition, offset = line["partition"], line["offset"]
    (poison,) = [
        r for r in read_topic(world.servers, world.input) if (r.partition, r.offset) == (partition, offset)
    ]
    assert b'-700"' in (poison.value or b"")
    wait_until(
        lambda: [p for p, end in world._ends().items() if world._committed()[p] < end] == [partition],
        60,
        "other partitions stand too",
        every_s=0.5,
    )
    command = [sys.executable, "-m", "streaming", "skip", "--bootstrap-servers", world.servers]
    command += ["--group", world.group, "--input-topic", world.input, "--reason", "it kills the service"]
    command += ["--partition", str(partition), "--offset", str(offset)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    world.wait_drained(60)
    letters = read_topic(world.servers, world.letters)
    assert [letter.value for letter in letters] == [poison.value]
    assert dict(letters[0].headers)["error.reason"] == b"skipped"
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert again.returncode == 1
    assert "outcome already" in again.stderr
