"""The monitor's loop where topics vanish and come back."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from typing_extensions import override

from streaming.errors import BrokerUnavailable, OffsetGone
from streaming.monitor.drift.watch import DriftWatch
from streaming.monitor.loop import Monitor
from streaming.monitor.observations import FEATURES
from streaming.monitor.promises import InfoReader
from streaming.monitor.store.state import State
from streaming.ports import TopicsSource
from streaming.records import InputRecord
from streaming.settings.drift import DriftSettings
from streaming.settings.monitor import MonitorSettings

NAMES = {"transactions": "in", "decisions": "out", "shadow": "out.shadow", "labels": "labels"}
PLACES = [(topic, partition) for topic in NAMES.values() for partition in range(2)]


class Broker(TopicsSource):
    """Topics in memory; the transactions can be deleted and made again."""

    def __init__(self, rows: int) -> None:
        self.made, self.rows, self.asked = 1, rows, 0
        self.is_missing = False
        self._positions: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def make_again(self, rows: int) -> None:
        with self._lock:
            self.made, self.rows, self.is_missing = self.made + 1, rows, False

    def _end(self, topic: str) -> int:
        return self.rows if topic == "in" else 0

    @override
    def topic_ids(self) -> dict[str, str]:
        self.asked += 1
        if self.is_missing:
            raise BrokerUnavailable("Missing topics: in; the monitor goes on when they are created again")
        return {topic: f"{topic}-{self.made if topic == 'in' else 0}" for topic in NAMES.values()}

    @override
    def bounds(self) -> dict[tuple[str, int], tuple[int, int]]:
        return {(topic, partition): (0, self._end(topic)) for topic, partition in PLACES}

    @override
    def seek(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._positions.update(positions)

    @override
    def poll(self, timeout_ms: int, max_records: int) -> list[InputRecord]:
        time.sleep(0.005)
        found = []
        with self._lock:
            for (topic, partition), offset in self._positions.items():
                if offset > self._end(topic):
                    raise OffsetGone("no such offset")
                for at in range(offset, 0 if self.is_missing else self._end(topic)):
                    found.append(InputRecord(topic, partition, at, 1_700_000_000_000, None, self._value(at)))
                    self._positions[topic, partition] = at + 1
        return found

    def _value(self, offset: int) -> bytes:
        values = {name: float(offset) for name in FEATURES}
        return json.dumps({**values, "transaction_id": f"{self.made}-{offset}"}).encode()

    @override
    def lags(self) -> dict[tuple[str, int], int]:
        return dict.fromkeys(PLACES, 0)

    @property
    @override
    def answered_at(self) -> float:
        return time.monotonic()


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def broker() -> Broker:
    return Broker(rows=5)


@pytest.fixture
def monitor(broker: Broker, tmp_path: Path) -> Iterator[Monitor]:
    settings = MonitorSettings(state=tmp_path / "state", refresh_s=0.1)
    state = State(settings)
    info = InfoReader({}, 60.0, None, ssl.create_default_context())
    made = Monitor(broker, NAMES, state, DriftWatch(DriftSettings(), {}), info, settings)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join(10)
    assert not thread.is_alive()
    state.close()


def used(monitor: Monitor) -> int:
    counts = (monitor.document or {}).get("counts", {"records": {}})["records"]
    return int(counts.get("transactions", {}).get("used", 0))


def test_no_record_of_a_topic_made_again_passes_for_one_of_the_old(monitor: Monitor, broker: Broker) -> None:
    """The new topic has grown beyond the old offset before anybody looks at ids: 5 to 8 exist in both."""
    wait_until(lambda: used(monitor) == 2 * 5)
    broker.make_again(rows=9)
    wait_until(lambda: used(monitor) >= 2 * (5 + 9))
    time.sleep(0.3)
    assert used(monitor) == 2 * (5 + 9)
    assert monitor.document is not None
    assert monitor.document["counts"]["made_again"] == {"transactions": 1}


def test_a_missing_topic_is_named_while_nothing_is_read_and_waited_for(
    monitor: Monitor, broker: Broker
) -> None:
    wait_until(lambda: used(monitor) == 2 * 5)
    broker.is_missing = True
    wait_until(lambda: "Missing topics: in" in (monitor.waits_for or ""))
    broker.make_again(rows=3)
    wait_until(lambda: used(monitor) == 2 * (5 + 3))
    assert monitor.waits_for is None


def test_ids_are_asked_for_seldom_while_nothing_comes(monitor: Monitor, broker: Broker) -> None:
    wait_until(lambda: used(monitor) == 2 * 5)
    before = broker.asked
    time.sleep(1.0)
    assert broker.asked - before <= 2
