# ruff: noqa: T201  # seed and figures are the point
"""A thousand hostile bodies and two hundred hostile connections beside good callers."""

import asyncio
import os
import random
from pathlib import Path

import httpx
import pytest

from benchmarks.hostile import show, stand
from benchmarks.serving import our_server
from demo.ports import choose_port
from tests.conftest import home_variables
from tests.training_fixtures import THIRD_PARTY_WARNINGS

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(900), *THIRD_PARTY_WARNINGS]

# What the pod of configs/kubernetes may take.
MOST_MEMORY_MIB = 1536


def test_no_good_caller_is_refused_or_waits_and_memory_is_bounded(release_home: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"SEED={seed}")
    with our_server(choose_port(3460), variables=home_variables(release_home)) as (server, _):
        seen = asyncio.run(stand(server, hostile_bodies=1000, connections=200, seed=seed))
        memory_mib = server.memory_mib()
        show(seen, memory_mib)
        assert httpx.get(server.url.replace("/classify", "/readyz"), timeout=10).status_code == 200
    assert seen.answers > 100
    assert not seen.refused
    assert max(seen.seconds) <= 2.0
    assert seen.defects == 0, seen.hostile["statuses"]
    assert max(seen.memory_mib) < MOST_MEMORY_MIB
