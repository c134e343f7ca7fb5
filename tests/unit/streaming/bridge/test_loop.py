import itertools
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from streaming.bridge import held
from streaming.bridge.decider import Decider
from streaming.bridge.group_monitor import GroupMonitor
from streaming.bridge.held import HeldPartitions
from streaming.bridge.loop import Bridge, BridgeParts
from streaming.bridge.pipeline import Pipeline
from streaming.bridge.publisher import Publisher, RecordSizeLimits
from streaming.bridge.recovery import Recovery
from streaming.bridge_state import BridgeState
from streaming.errors import (
    BrokerRefused,
    BrokerUnavailable,
    Fenced,
    MessageTooLarge,
    PublishFailed,
    RecordsHeld,
    ServiceRefused,
    ServiceUnavailable,
)
from streaming.observability.metrics import Metrics
from streaming.records import HeldCause, HeldRecord, InputRecord
from streaming.scoring.backoff import Backoff
from streaming.settings.bridge import BridgeSettings
from streaming.settings.sections import ServiceSettings
from tests.e2e.bad_records import all_kinds
from tests.e2e.faults import transactions, wait_until
from tests.e2e.verifier import verify
from tests.fakes import FakeBroker, FakeClassifier, FakeGroupMembership, FakeSink, FakeSource


@dataclass
class Rig:
    """A bridge on fakes, running on a thread."""

    broker: FakeBroker
    source: FakeSource
    sink: FakeSink
    membership: FakeGroupMembership
    classifier: FakeClassifier
    metrics: Metrics
    state: BridgeState
    bridge: Bridge
    refreshed: list[int]
    error: BaseException | None = None
    thread: threading.Thread | None = None

    def start(self) -> "Rig":
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self) -> None:
        try:
            self.bridge.run()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self.bridge.stop()
        self.join()

    def join(self) -> None:
        assert self.thread is not None
        self.thread.join(10)
        assert not self.thread.is_alive()

    def wait_drained(self) -> None:
        wait_until(lambda: self.broker.is_drained() or self.error is not None, 10, "not drained", 0.005)
        assert self.error is None, self.error


def make_rig(
    broker: FakeBroker | None = None,
    sink: FakeSink | None = None,
    classifier: FakeClassifier | None = None,
    records: int = 20,
    fetch_interval_ms: float = 0.0,
) -> Rig:
    broker = broker or FakeBroker()
    source, membership, metrics = FakeSource(broker), FakeGroupMembership(), Metrics()
    state = BridgeState()
    sink = sink or FakeSink(broker)
    classifier = classifier or FakeClassifier()
    settings = BridgeSettings(
        instance_id="a",
        revoke_timeout_s=1.0,
        stop_timeout_s=2.0,
        poll_timeout_ms=2,
        fetch_interval_ms=fetch_interval_ms,
    )
    service = ServiceSettings(max_batch_records=records)
    refreshed: list[int] = []

    def read_limits() -> RecordSizeLimits:
        refreshed.append(1)
        return RecordSizeLimits(10**6, 10**6)

    publisher = Publisher(source, sink, read_limits, metrics, state)
    decider = Decider(classifier, Backoff(0.001, 0.005), metrics, state)
    pipeline = Pipeline(decider.decide, publisher, 3, 10**7, 2, large_records=records)
    monitor = GroupMonitor(source, membership, state, 0.05)
    recovery = Recovery(source, sink, pipeline, monitor, metrics, state, Backoff(0.001, 0.005), publisher)
    held = HeldPartitions(source, metrics, state)
    parts = BridgeParts(source, sink, membership, monitor, pipeline, recovery, held, metrics, state)
    bridge = Bridge(parts, settings, service)
    return Rig(broker, source, sink, membership, classifier, metrics, state, bridge, refreshed)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = make_rig()
    yield rig
    if rig.thread is not None:
        rig.stop()


def feed(broker: FakeBroker, records: int, bad_share: float = 0.1) -> None:
    rng = random.Random(records)
    sound, kinds = transactions(1), itertools.cycle(all_kinds())
    for number in range(records):
        key, value = next(kinds) if rng.random() < bad_share else (f"c{number % 7}".encode(), next(sound))
        broker.produce(number % broker.partitions, value, key)


def assert_exactly_once(broker: FakeBroker) -> None:
    report = verify(*broker.seen())
    assert report.is_clean, report
    assert report.inputs


def test_every_record_has_one_outcome(rig: Rig) -> None:
    feed(rig.broker, 1000)
    rig.start().wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)
    assert rig.error is None
    assert rig.source.is_closed
    assert rig.sink.is_closed
    assert rig.membership.left_as == rig.source.member_id


def test_batches_that_are_ready_share_a_transaction() -> None:
    rig = make_rig(records=5)
    feed(rig.broker, 500)
    rig.sink.before = lambda: time.sleep(0.02)
    rig.start().wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)
    assert rig.broker.transactions < 100


def test_fetches_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig(fetch_interval_ms=30)
    moments: list[float] = []
    poll = rig.source.poll

    def noted(timeout_ms: int, max_records: int) -> list[InputRecord]:
        moments.append(time.monotonic())
        return poll(timeout_ms, max_records)

    monkeypatch.setattr(rig.source, "poll", noted)
    feed(rig.broker, 200)
    rig.start().wait_drained()
    gaps = [after - before for before, after in itertools.pairwise(moments.copy())]
    rig.stop()  # at once, whatever the distance
    assert_exactly_once(rig.broker)
    assert len(gaps) >= 9
    assert min(gaps) >= 0.029


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_a_failed_transaction_is_done_again_from_the_committed_offsets(rig: Rig, is_after: bool) -> None:
    fault = PublishFailed("the answer got lost")
    rig.sink.faults = [None, (fault,) if is_after else fault, None, (fault,) if is_after else fault]
    feed(rig.broker, 500)
    rig.start().wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)
    assert rig.source.rewinds == 2
    assert rig.sink.starts == 3


def test_random_failures_of_everything(rig: Rig) -> None:
    rng = random.Random(5)
    errors = [PublishFailed("x"), (PublishFailed("y"),), BrokerUnavailable("z"), (BrokerUnavailable("w"),)]
    rig.sink.faults = [rng.choice(errors) if rng.random() < 0.3 else None for _ in range(60)]
    rig.sink.start_faults = []
    busy = ServiceUnavailable("503", "503", 0.0)
    rig.classifier.faults = [busy if rng.random() < 0.3 else None for _ in range(100)]
    feed(rig.broker, 2000)
    rig.start().wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)


def test_a_broker_that_is_down_is_waited_for(rig: Rig) -> None:
    rig.sink.start_faults = [BrokerUnavailable("down")] * 5
    feed(rig.broker, 50)
    rig.start().wait_drained()
    rig.sink.faults = [PublishFailed("down")]
    rig.sink.start_faults = [BrokerUnavailable("down")] * 5
    feed(rig.broker, 50)
    rig.wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)


def test_revoked_partitions_are_finished_before_they_go(rig: Rig) -> None:
    feed(rig.broker, 400)
    rig.classifier.before = lambda: time.sleep(0.005)
    rig.start()
    wait_until(lambda: bool(rig.broker.outputs), 5, "nothing published", 0.002)
    rig.source.revoke(1)
    wait_until(lambda: 1 not in rig.source._positions, 5, "not revoked", 0.002)
    assert rig.source.rewinds == 0
    rig.source.give_back(1)
    rig.wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)


def test_revoked_partitions_are_dropped_when_they_cannot_be_finished_in_time(rig: Rig) -> None:
    feed(rig.broker, 200)
    hung = threading.Event()
    rig.classifier.before = lambda: hung.wait(20) or None  # type: ignore[func-returns-value]
    rig.start()
    wait_until(lambda: bool(rig.classifier.requests), 5, "nothing asked", 0.002)
    begun = time.monotonic()
    rig.source.revoke(1)
    wait_until(lambda: 1 not in rig.source._positions, 5, "not revoked", 0.002)
    assert time.monotonic() - begun < 4
    hung.set()
    rig.source.give_back(1)
    rig.wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)
    assert rig.source.rewinds


def test_lost_partitions_are_dropped_at_once(rig: Rig) -> None:
    feed(rig.broker, 400)
    rig.classifier.before = lambda: time.sleep(0.01)
    rig.start()
    wait_until(lambda: bool(rig.broker.outputs), 5, "nothing published", 0.002)
    rig.source.lose(0, 1)
    rig.source.give_back(0, 1)
    rig.wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)
    assert rig.source.rewinds


def test_an_evicted_member_does_not_go_on_where_it_was(rig: Rig) -> None:
    feed(rig.broker, 200)
    other = make_rig(rig.broker)
    rig.classifier.before = lambda: time.sleep(0.01)
    rig.start()
    wait_until(lambda: bool(rig.broker.outputs), 5, "nothing published", 0.002)

    def others_work() -> None:
        other.start().wait_drained()
        other.stop()

    rig.source.evict(others_work)
    wait_until(lambda: rig.source.rewinds > 0, 5, "no recovery")
    feed(rig.broker, 100)
    rig.wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)


def test_a_full_pipeline_pauses_and_keeps_polling(rig: Rig) -> None:
    feed(rig.broker, 300)
    open_again = threading.Event()
    rig.classifier.before = lambda: open_again.wait(20) or None  # type: ignore[func-returns-value]
    rig.start()
    wait_until(lambda: rig.source.pauses > 1, 5, "not paused")

    def paused_s() -> float:
        return rig.metrics.registry.get_sample_value("bridge_paused_seconds_total") or 0.0

    wait_until(lambda: paused_s() > 0, 5, "a pause is only counted when it is over")
    open_again.set()
    rig.wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)


def test_what_comes_although_fetching_is_paused_is_fetched_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(rig.broker, 300)
    open_again = threading.Event()
    rig.classifier.before = lambda: open_again.wait(20) or None  # type: ignore[func-returns-value]
    poll, leaked = rig.source.poll, list[InputRecord]()

    def leaking(timeout_ms: int, max_records: int) -> list[InputRecord]:
        # As when partitions are assigned during the poll that keeps the membership alive.
        if max_records > 1 or leaked:
            return poll(timeout_ms, max_records)
        rig.source.resume()
        leaked.extend(found := poll(timeout_ms, max_records))
        return found

    monkeypatch.setattr(rig.source, "poll", leaking)
    rig.start()
    wait_until(lambda: bool(leaked), 5, "not paused")
    open_again.set()
    rig.wait_drained()
    rig.stop()
    assert_exactly_once(rig.broker)


def test_readiness_follows_the_membership(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.bridge.loop.LAG_EVERY_S", 0.01)
    rig.start()
    wait_until(lambda: rig.state.is_assigned, 5, "not joined")
    rig.source.is_joined = False
    wait_until(lambda: not rig.state.is_assigned, 5, "outside the group, and still ready")
    rig.source.is_joined = True
    wait_until(lambda: rig.state.is_assigned, 5, "a member that nobody assigned anything is not ready")


def test_partitions_that_nobody_reads_are_asked_for(rig: Rig) -> None:
    rig.membership.is_unassigned = True
    rig.start()
    wait_until(lambda: rig.source.rejoins >= 1, 5, "nobody asked")

    def lag() -> float | None:
        return rig.metrics.registry.get_sample_value("bridge_lag_records", {"partition": "7"})

    wait_until(lambda: lag() == 30, 5, "the lag of what nobody reads is not shown")
    rig.membership.is_unassigned = False
    wait_until(lambda: lag() is None, 5, "still shown")


def test_outside_its_group_nothing_is_committed(rig: Rig) -> None:
    rig.source.is_joined = False
    feed(rig.broker, 20)
    rig.start()
    wait_until(lambda: rig.source.rewinds > 1, 5, "no recovery")
    assert not rig.broker.outputs
    rig.source.is_joined = True
    rig.wait_drained()
    assert_exactly_once(rig.broker)


def test_a_refusal_of_the_service_ends_the_bridge(rig: Rig) -> None:
    rig.classifier.faults = [None, ServiceRefused("The service answered 401.")]
    feed(rig.broker, 100)
    rig.start().join()
    assert isinstance(rig.error, ServiceRefused)
    assert not rig.membership.has_left


def test_a_rival_ends_the_bridge(rig: Rig) -> None:
    rig.start()
    rig.membership.taken.set()
    rig.join()
    assert isinstance(rig.error, Fenced)
    assert "instance id a" in str(rig.error)


def test_fencing_without_a_rival_is_survived_twice_but_not_for_ever(rig: Rig) -> None:
    rig.sink.faults = [None, Fenced("x"), None, Fenced("x")]
    feed(rig.broker, 400)
    rig.start().wait_drained()
    assert_exactly_once(rig.broker)
    rig.sink.faults = [Fenced("x")]
    feed(rig.broker, 10)
    rig.join()
    assert isinstance(rig.error, Fenced)


def test_being_fenced_while_joining_ends_the_bridge(rig: Rig) -> None:
    rig.source.faults = [Fenced("FencedInstanceIdError")]
    rig.start().join()
    assert isinstance(rig.error, Fenced)


def test_a_refusal_of_the_broker_ends_the_bridge(rig: Rig) -> None:
    rig.sink.faults = [BrokerRefused("no right to write")]
    feed(rig.broker, 10)
    rig.start().join()
    assert isinstance(rig.error, BrokerRefused)


def test_limits_are_read_again_when_a_record_is_too_large(rig: Rig) -> None:
    rig.sink.faults = [MessageTooLarge("MESSAGE_TOO_LARGE")]
    feed(rig.broker, 10)
    rig.start().wait_drained()
    assert len(rig.refreshed) == 2  # at the start, and now


def test_stopping_drops_what_cannot_be_finished(rig: Rig) -> None:
    hung = threading.Event()
    rig.classifier.before = lambda: hung.wait(20) or None  # type: ignore[func-returns-value]
    feed(rig.broker, 10)
    rig.start()
    wait_until(lambda: bool(rig.classifier.requests), 5, "nothing asked", 0.002)
    begun = time.monotonic()
    rig.stop()
    assert time.monotonic() - begun < 4
    assert rig.error is None
    assert not rig.broker.outputs
    hung.set()


def test_stopping_while_the_broker_is_down(rig: Rig) -> None:
    rig.sink.start_faults = [BrokerUnavailable("down")] * 10_000
    rig.start()
    wait_until(lambda: rig.sink.starts > 2, 5, "no attempt")
    rig.stop()
    assert rig.error is None


@pytest.mark.parametrize("cause", ["unreadable", "leaderless"])
def test_what_holds_one_partition_leaves_the_others_going(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, cause: HeldCause
) -> None:
    """A batch that cannot be read, an output partition without a leader: found by the source, by the sink."""
    monkeypatch.setitem(held.RETRIES_S, cause, (0.5, 60.0))
    feed(rig.broker, 40)
    blocked = RecordsHeld([HeldRecord(0, 0, "it is damaged", cause)])
    finder = rig.source if cause == "unreadable" else rig.sink
    finder.faults.append(blocked)
    rig.start()
    wait_until(lambda: rig.broker.committed.get(1) == 20, 5, "the other partition stands too", 0.01)
    assert rig.state.held[0][:4] == (0, 0, "it is damaged", cause)
    assert not rig.broker.committed.get(0)
    rig.wait_drained()
    wait_until(lambda: not rig.state.held, 5, "still held")
    assert len(rig.broker.outputs) == 40


def test_a_record_that_the_service_fails_on_holds_its_partition_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(held.RETRIES_S, "service", (0.05, 60.0))
    values = list(itertools.islice(transactions(9), 200))
    for number, value in enumerate(values):
        rig.broker.produce(number % 2, value, b"k")
    poison = rig.broker.inputs[0][40]
    rig.classifier.poison = poison.value
    rig.start()
    wait_until(lambda: rig.broker.committed.get(1) == 100, 10, "the other partition stands too")
    wait_until(lambda: rig.broker.committed.get(0) == 40, 10, "what is before it was not published")
    wait_until(lambda: rig.state.held.get(0, HeldRecord(0, 0, "")).attempts > 2, 10, "not tried again")
    assert rig.state.held[0].offset == 40
    rig.membership.skip_orders = {(0, 40): "it kills the service"}
    rig.wait_drained()
    wait_until(lambda: not rig.state.held, 5, "still held")
    assert not rig.source.held
    outcomes = [output for output in rig.broker.outputs if output.kind == "dead_letter"]
    assert [output.value for output in outcomes] == [poison.value]
    assert dict(outcomes[0].headers)["error.message"] == b"it kills the service"
    assert len(rig.broker.outputs) == 200
