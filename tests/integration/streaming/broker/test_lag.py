"""The lag that a real bridge tells while the service is down."""

from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from demo.ports import choose_port
from tests.e2e.faults import wait_until


def lag(port: int) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return sum(sample.value for sample in families["bridge_lag_records"].samples)


def test_lag_grows_while_the_service_is_down_and_goes_when_it_is_back(world_of_any_broker: Any) -> None:
    world, port = world_of_any_broker, choose_port(9464)
    # One batch in flight at most: the bridge stops fetching as soon as that one has to wait.
    world.start_bridge("a", METRICS__PORT=port, BRIDGE__MAX_IN_FLIGHT_BATCHES=1)
    with world.feed(500, bad_share=0):
        world.wait_progress(100, 60)
        world.script("status", 503)
        wait_until(lambda: lag(port) > 1000, 30, "the lag does not grow")
        grown = lag(port)
        wait_until(lambda: lag(port) > grown, 15, "the lag stands still")
        world.script("ok")
    world.wait_drained(60)
    wait_until(lambda: lag(port) == 0, 15, "the lag does not go")
