import itertools
import threading
import time

import pytest

from streaming.bridge.batch import Batch
from streaming.bridge.decider import Decider, Dropped
from streaming.bridge_state import BridgeState
from streaming.errors import BatchRejected, BatchTooLarge, RejectedItem, ServiceRefused, ServiceUnavailable
from streaming.observability.metrics import Metrics
from streaming.records import HeldRecord, InputRecord, Outcome, Rejection, ServiceDecision, Undecided
from streaming.scoring.backoff import Backoff
from tests.e2e.faults import transactions
from tests.fakes import TOPIC, FakeClassifier


def make_batch(*values: bytes | None) -> Batch:
    return Batch([InputRecord(TOPIC, 0, offset, 0, None, value) for offset, value in enumerate(values)])


def good(count: int) -> list[bytes]:
    sound = transactions(3)
    return [next(sound) for _ in range(count)]


def decide(classifier: FakeClassifier, batch: Batch) -> list[Outcome]:
    return Decider(classifier, Backoff(0.001, 0.002), Metrics(), BridgeState()).decide(batch)


def stages(outcomes: list[Outcome]) -> str:
    """Return one letter for each outcome: decided, parse, validate, classify."""
    return "".join("d" if isinstance(o, ServiceDecision) else o.stage[0] for o in outcomes)


BAD = b'{"Time":1}'


def test_a_batch_keeps_its_order() -> None:
    values = good(50)
    outcomes = decide(FakeClassifier(), make_batch(*values))
    assert [o.raw.split(b'"')[3] for o in outcomes if isinstance(o, ServiceDecision)] == [
        v.split(b'"')[3] for v in values
    ]


def test_only_the_named_items_are_rejected() -> None:
    one, two, three = good(3)
    classifier = FakeClassifier()
    outcomes = decide(classifier, make_batch(one, b"{", BAD, two, None, BAD, three))
    assert stages(outcomes) == "dpvdpvd"
    assert classifier.requests == [5, 3]


def test_records_that_are_asked_again_are_counted_once() -> None:
    """Repeats are counted as such; requests, their records and what was decided count when they succeed."""
    classifier = FakeClassifier([ServiceUnavailable("busy", "503")] * 3)
    metrics, batch = Metrics(), make_batch(*good(4))
    outcomes = Decider(classifier, Backoff(0.001, 0.002), metrics, BridgeState()).decide(batch)
    metrics.count_transaction(list(zip(batch.records, outcomes, strict=True)), 0.001)
    value = metrics.registry.get_sample_value
    assert len(classifier.requests) == 4
    assert value("bridge_retries_total", {"reason": "503"}) == 3
    assert (value("bridge_request_seconds_count"), value("bridge_batch_records_sum")) == (1, 4)
    decided = [
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "bridge_records_decided_total"
    ]
    assert sum(decided) == 4


def test_a_rejection_says_why_and_how_often_it_was_asked() -> None:
    (rejection,) = decide(FakeClassifier(), make_batch(BAD))
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.attempts) == ("missing", 1)


def test_a_batch_without_sound_records_asks_nothing() -> None:
    classifier = FakeClassifier()
    assert stages(decide(classifier, make_batch(None, b"", b"["))) == "ppp"
    assert classifier.requests == []


def test_an_unnamed_culprit_is_found_by_halving() -> None:
    values = good(100)
    values[37] = values[80] = BAD
    classifier = FakeClassifier(names_culprits=False)
    outcomes = decide(classifier, make_batch(*values))
    assert [i for i, o in enumerate(outcomes) if isinstance(o, Rejection)] == [37, 80]
    assert stages(outcomes).count("c") == 2
    assert len(classifier.requests) < 40


@pytest.mark.parametrize("place", [-1, 2, 10**9])
def test_a_name_outside_the_batch_is_no_name(place: int) -> None:
    refusal = BatchRejected("bad", [RejectedItem(place, "x", "y")])
    assert stages(decide(FakeClassifier([refusal]), make_batch(*good(2)))) == "dd"


def test_a_request_too_large_is_split() -> None:
    classifier = FakeClassifier([BatchTooLarge("413"), BatchTooLarge("413")])
    assert stages(decide(classifier, make_batch(*good(8)))) == "d" * 8
    assert sorted(classifier.requests) == [2, 2, 4, 4, 8]


def test_a_single_record_too_large_is_a_dead_letter() -> None:
    (rejection,) = decide(FakeClassifier([BatchTooLarge("413")]), make_batch(*good(1)))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "too_large"


def test_an_unavailable_service_is_asked_for_ever() -> None:
    classifier = FakeClassifier([ServiceUnavailable("503", "503")] * 200)
    assert stages(decide(classifier, make_batch(*good(2)))) == "dd"
    assert len(classifier.requests) == 201


def test_a_refusal_is_not_repeated() -> None:
    classifier = FakeClassifier([ServiceRefused("401")])
    with pytest.raises(ServiceRefused):
        decide(classifier, make_batch(*good(2)))
    assert len(classifier.requests) == 1


def test_a_dropped_batch_stops_waiting_at_once() -> None:
    batch = make_batch(*good(1))
    classifier = FakeClassifier([ServiceUnavailable("503", "503", retry_after_s=30.0)])
    classifier.before = lambda: threading.Timer(0.05, batch.dropped.set).start()
    begun = time.monotonic()
    with pytest.raises(Dropped):
        Decider(classifier, Backoff(0.01, 0.02), Metrics(), BridgeState()).decide(batch)
    assert time.monotonic() - begun < 5


def test_waits_grow_to_a_limit_and_vary() -> None:
    backoff = Backoff(0.1, 5.0, retry_after_max_s=30.0)
    first = {backoff.delay_s(1) for _ in range(50)}
    late = {backoff.delay_s(1000) for _ in range(50)}
    assert 0.05 <= min(first) < max(first) <= 0.1
    assert 2.5 <= min(late) < max(late) <= 5.0


def test_retry_after_is_honoured_within_reason() -> None:
    backoff = Backoff(0.1, 5.0, retry_after_max_s=30.0)
    assert 20.0 <= backoff.delay_s(1, 20.0) <= 22.0
    assert 30.0 <= backoff.delay_s(1, 86_400.0) <= 33.0
    assert backoff.delay_s(1, 0.0) >= 0.05


def batch_of(values: list[bytes]) -> Batch:
    return Batch([InputRecord("t", 0, number, 0, None, value) for number, value in enumerate(values)])


def test_a_record_that_the_service_fails_on_is_told_apart() -> None:
    classifier = FakeClassifier()
    values = list(itertools.islice(transactions(3), 40))
    classifier.poison = values[17]
    decider = Decider(classifier, Backoff(0.001, 0.002), Metrics(), BridgeState())
    outcomes = decider.decide(
        Batch([InputRecord("t", 0, n, 0, None, value) for n, value in enumerate(values)])
    )
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Undecided)] == [17]
    assert len(classifier.requests) < 60


def test_a_record_that_was_held_is_asked_alone_and_once() -> None:
    classifier = FakeClassifier()
    values = list(itertools.islice(transactions(3), 10))
    classifier.poison = values[0]
    state = BridgeState(held={0: HeldRecord(0, 0, "500")})
    decider = Decider(classifier, Backoff(0.001, 0.002), Metrics(), state)
    batch = batch_of(values)
    assert isinstance(decider.decide(batch)[0], Undecided)
    assert classifier.requests == [1, 9]
    state.skip_orders = {(0, 0): "by hand"}
    skipped = decider.decide(batch)[0]
    assert isinstance(skipped, Rejection)
    assert (skipped.reason, skipped.message) == ("skipped", "by hand")


def test_a_service_that_fails_on_everything_is_waited_for() -> None:
    """Told apart are records only where the service decides others: an outage holds nothing."""
    down = ServiceUnavailable("The service answered 500.", "500")
    classifier = FakeClassifier([down] * 12)
    values = list(itertools.islice(transactions(3), 40))
    decider = Decider(classifier, Backoff(0.001, 0.002), Metrics(), BridgeState())
    outcomes = decider.decide(
        Batch([InputRecord("t", 0, n, 0, None, value) for n, value in enumerate(values)])
    )
    assert not [outcome for outcome in outcomes if isinstance(outcome, Undecided)]
