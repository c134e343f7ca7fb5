"""Topics that are deleted, made again or made smaller under a running bridge: named, and gone on with."""

import contextlib
import time
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from demo.processes import Process
from tests.e2e.faults import World, read_topic, wait_until
from tests.e2e.verifier import verify

pytestmark = pytest.mark.timeout(170)


def delete(world: World, topic: str) -> None:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=world.servers)) as admin:
        admin.delete_topics([topic])


def create(world: World, topic: str, partitions: int) -> None:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=world.servers)) as admin:
        admin.create_topics([NewTopic(topic, partitions, 1)])
        admin.wait_for_topics([topic])


def topics(world: World) -> list[str]:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=world.servers)) as admin:
        found: list[Any] = admin.list_topics()
        return [one if isinstance(one, str) else one["name"] for one in found]


def has_no_traceback(bridge: Process) -> bool:
    return b"Traceback" not in bridge.log.read_bytes()


def test_an_input_that_is_deleted_stays_deleted_and_is_read_again_when_it_is_smaller(world: World) -> None:
    bridge = world.start_bridge("a")
    with world.feed(300, bad_share=0.0):
        world.wait_progress(300, 60)
    world.wait_drained(60)
    earlier = len(read_topic(world.servers, world.output))
    delete(world, world.input)
    time.sleep(15.0)  # the broker makes a topic that anybody asks for
    assert world.input not in topics(world)
    assert bridge.poll() is None
    create(world, world.input, 2)
    world.partitions = 2
    with world.feed(300, bad_share=0.0):
        world.wait_progress(600, 60)
    world.wait_drained(60)
    world.partitions = 4
    decided = len(read_topic(world.servers, world.output)) - earlier
    assert decided == len(read_topic(world.servers, world.input, 2))
    assert has_no_traceback(bridge)


@pytest.mark.parametrize("partitions", [2, 6])
def test_an_output_made_again_with_other_partitions_gets_the_rest(world: World, partitions: int) -> None:
    bridge = world.start_bridge("a")
    with world.feed(300, bad_share=0.0):
        world.wait_progress(300, 60)
        delete(world, world.output)
        time.sleep(1.0)
        with contextlib.suppress(Exception):  # the bridge may have been quicker
            create(world, world.output, partitions)
        world.wait_progress(900, 90)
    world.wait_drained(60)
    assert bridge.poll() is None
    assert has_no_traceback(bridge)


def test_new_partitions_are_read_within_half_a_minute(world: World) -> None:
    world.start_bridge("a")
    with world.feed(300, bad_share=0.0):
        world.wait_progress(300, 60)
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=world.servers)) as admin:
        admin.create_partitions({world.input: 8})
    grown = time.monotonic()
    world.partitions = 8
    with world.feed(300, bad_share=0.0):
        wait_until(lambda: all(world._committed().get(number, 0) for number in range(4, 8)), 30, "not read")
        print(f"\nnew partitions were read {time.monotonic() - grown:.1f} s after they came")  # noqa: T201
    world.wait_drained(60)
    outputs = (read_topic(world.servers, name) for name in (world.output, world.letters))
    report = verify(read_topic(world.servers, world.input, 8), *outputs, output_partitions=4)
    assert report.is_clean, report
