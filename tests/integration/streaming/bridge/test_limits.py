"""Topics whose size limits change, or are smaller than a producer's batch, under a running bridge."""

import contextlib
import time
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from tests.e2e.faults import World

pytestmark = pytest.mark.timeout(170)


def set_limit(world: World, topic: str, limit: int) -> None:
    resource: Any = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": str(limit)})
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=world.servers)) as admin:
        admin.alter_configs([resource])


def test_a_limit_lowered_for_a_moment_sends_nothing_to_the_dead_letters(world: World) -> None:
    world.start_bridge("a")
    with world.feed(500, bad_share=0.0):
        world.wait_progress(300, 60)
        for limit in (100, 600):
            set_limit(world, world.output, limit)
            time.sleep(3.0)
            set_limit(world, world.output, 1_048_588)
            world.wait_progress(500, 60)
    world.wait_drained(60)
    report = world.report()
    assert report.is_clean, report
    assert report.dead_letters == 0


def test_topics_that_take_less_than_a_producers_batch(world: World) -> None:
    for topic in (world.output, world.letters):
        set_limit(world, topic, 20_000)
    world.start_bridge("a")
    with world.feed(1500):
        time.sleep(4)
    world.wait_drained(60)
    report = world.report()
    assert report.is_clean, report
