"""Recall, precision and cost against sums done by hand."""

import pytest

from demo.figures import Truth, assess
from demo.ledger import Decided


def stream(outcomes: list[tuple[str, bool]]) -> list[Decided]:
    return [Decided(name, "review" if alarm else "approve", alarm, 1.0) for name, alarm in outcomes]


TRUTH = {
    "caught": Truth(True, 100.0, 1.0),
    "missed": Truth(True, 50.0, 1.0),
    "false alarm": Truth(False, 10.0, 15.0),
    "genuine": Truth(False, 10.0, 15.0),
}
DECIDED = stream([("caught", True), ("missed", False), ("false alarm", True), ("genuine", False)])


def test_figures_hold_at_the_weighted_prevalence() -> None:
    quality = assess(DECIDED, TRUTH)
    assert quality.recall is not None and quality.precision is not None and quality.cost_saved is not None
    assert quality.prevalence == pytest.approx(2 / 32)
    assert quality.recall.value == pytest.approx(1 / 2)
    assert quality.precision.value == pytest.approx(1 / 16)
    assert quality.cost_saved.value == pytest.approx(1 - (50 + 16) / 150)
    assert (quality.frauds, quality.caught) == (2, 1)


def test_the_interval_holds_the_value_and_narrows_with_rows() -> None:
    few = assess(DECIDED, TRUTH).recall
    many = assess(DECIDED * 100, TRUTH).recall
    assert few is not None and many is not None
    assert few.low <= few.value <= few.high
    assert many.high - many.low < 0.3 * (few.high - few.low)


def test_without_fraud_nothing_is_claimed() -> None:
    quality = assess(stream([("genuine", False)]), TRUTH)
    assert quality.recall is None
    assert quality.precision is None
    assert quality.cost_saved is None


def test_transactions_without_a_label_are_left_out() -> None:
    assert assess(stream([("unknown", True)]), TRUTH).frauds == 0
