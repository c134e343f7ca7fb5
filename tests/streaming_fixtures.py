"""Fixtures of the streaming tests."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    # kafka-python reads its schemas with importlib.resources.read_text, deprecated since Python 3.11.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401

from streaming.settings.load import Settings

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Bear with sockets that kafka-python leaves to the garbage collector when a client is closed."""
    warning = "pytest.PytestUnraisableExceptionWarning"
    config.addinivalue_line("filterwarnings", f"ignore:Exception ignored in. <socket.socket:{warning}")
    # The line above counts for the tests, this one for the last collection at the end of the session.
    ignored = "Exception ignored in. <socket.socket"
    warnings.filterwarnings("ignore", ignored, pytest.PytestUnraisableExceptionWarning)


MakeSettings = Callable[..., Settings]


@pytest.fixture
def fresh_settings(broker: str) -> MakeSettings:
    """Return a function that makes settings for the broker, with topics and a group of their own."""
    name = f"test-{os.getpid()}-{next(_numbers)}"

    def make(**sections: dict[str, Any]) -> Settings:
        defaults: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": broker, "request_timeout_s": 5.0},
            "topics": {"input": f"{name}.in", "output": f"{name}.out", "dead_letter": f"{name}.dead"},
            "service": {"request_timeout_s": 2.0, "backoff_max_s": 0.2},
            "bridge": {
                "group": name,
                "instance_id": "a",
                "session_timeout_ms": 6000,
                "revoke_timeout_s": 2.0,
                "transaction_deadline_s": 4.0,
                "transaction_timeout_ms": 8000,
                "membership_check_s": 0.5,
            },
            "metrics": {"port": 0},
        }
        merged = {key: {**defaults.get(key, {}), **sections.get(key, {})} for key in {*defaults, *sections}}
        return Settings(**merged)

    return make


@pytest.fixture
def world(genuine_broker: str, tmp_path: Path) -> Iterator[Any]:
    """Yield topics of their own, a scripted service, and the means to start bridges."""
    from tests.e2e.faults import World

    with World(genuine_broker, tmp_path) as world:
        yield world


@pytest.fixture
def world_of_any_broker(broker: str, tmp_path: Path) -> Iterator[Any]:
    """Yield the same on whatever broker there is, the embedded one included."""
    from tests.e2e.faults import World

    with World(broker, tmp_path) as world:
        yield world
