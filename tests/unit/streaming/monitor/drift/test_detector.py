"""The drift detector: quiet while nothing changes, quick when something does, the same after a restart."""

import json
import math
import random
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import pytest

from streaming.monitor.drift.detector import WINDOWS, DriftDetector, chi2_quantile
from streaming.monitor.drift.reference import Reference
from streaming.settings.drift import DriftSettings

SETTINGS = DriftSettings()
DECILES = [NormalDist().inv_cdf(share / 10) for share in range(1, 10)]


def entry(variation: Sequence[tuple[int, float]] = (), **changes: Any) -> dict[str, Any]:
    measured = [{"rows": rows, "divergence": divergence} for rows, divergence in variation]
    return {"edges": DECILES, "shares": [0.1] * 10, "variation": measured, **changes}


def document(**features: dict[str, Any]) -> dict[str, Any]:
    scores = {name: entry() for name in ("neural_net", "xgboost")}
    return {"rows": 57_000, "features": features, "scores": scores, "fraud_probability": entry()}


def detector(**features: dict[str, Any]) -> DriftDetector:
    return DriftDetector(Reference.from_document(document(**(features or {"V14": entry()}))), SETTINGS)


def normal(rows: int, shift: float = 0.0, seed: int = 0) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(shift, 1.0) for _ in range(rows)]


def test_the_stream_of_the_reference_raises_nothing() -> None:
    watched = detector()
    for seed in range(20):
        watched.update("V14", normal(10_000, seed=seed))
        assert watched.alarms() == []
    assert [one.rows for one in watched.findings()] == list(WINDOWS[:4])


@pytest.mark.parametrize("before", [0, 1, 1250, 2499])
def test_half_a_standard_deviation_is_seen_within_a_window_and_a_half(before: int) -> None:
    watched = detector()
    watched.update("V14", normal(before))
    watched.update("V14", normal(3750, shift=0.5, seed=1))
    (alarm,) = watched.alarms()
    assert (alarm.series, alarm.rows) == ("V14", 2500)
    # A window that the shift fills: two normals d apart have Jeffreys' divergence d squared.
    assert 0.1 < alarm.divergence < 0.35


def test_a_slow_change_is_seen_by_a_large_window_and_measured_against_the_release_not_yesterday() -> None:
    watched = detector()
    rng = random.Random(1)
    for step in range(64):  # from 0 to 0.32 of a standard deviation, 0.005 at a time
        watched.update("V14", [rng.gauss(0.005 * step, 1.0) for _ in range(2500)])
    assert {alarm.rows for alarm in watched.alarms()} >= {10_000, 40_000}


def test_a_rhythm_that_the_training_data_had_is_no_drift() -> None:
    wave = [math.sin(2 * math.pi * row / 20_000) + value for row, value in enumerate(normal(40_000))]
    blind, aware = detector(), detector(V14=entry([(2500, 1.2), (10_000, 0.8)]))
    for watched in (blind, aware):
        watched.update("V14", wave)
    assert blind.alarms()
    assert not [alarm for alarm in aware.alarms() if alarm.rows <= 10_000]


def test_the_length_of_a_batch_and_a_restart_change_nothing() -> None:
    values = normal(23_456, shift=0.1)
    at_once, piecewise = detector(), detector()
    at_once.update("V14", values)
    rng, place = random.Random(5), 0
    while place < len(values):
        size = rng.choice([1, 7, 500, 2500, 6000])
        piecewise.update("V14", values[place : place + size])
        place += size
        state = json.loads(json.dumps(piecewise.state()))
        piecewise = DriftDetector.restored(Reference.from_document(document(V14=entry())), SETTINGS, state)
    assert piecewise.findings() == at_once.findings()
    assert piecewise.state() == at_once.state()


def test_a_state_without_its_half_window_is_refused() -> None:
    watched = detector()
    watched.update("V14", normal(2000))
    state = watched.state()
    state["V14"]["step_before"] = [1]
    with pytest.raises(ValueError, match="other bins of V14"):
        DriftDetector.restored(Reference.from_document(document(V14=entry())), SETTINGS, state)


def test_a_bin_holds_its_upper_edge_as_the_reference_counts_it() -> None:
    reference = document(V14=entry(edges=[0.0, 1.0], shares=[0.25, 0.5, 0.25]))
    watched = DriftDetector(Reference.from_document(reference), SETTINGS)
    watched.update("V14", [0.0, 1.0, 1.0, math.nextafter(1.0, 2)] * 625)
    (finding,) = [one for one in watched.findings() if one.series == "V14"]
    assert finding.divergence == pytest.approx(0, abs=1e-6)


def test_the_clock_is_shown_but_never_alarms() -> None:
    watched = detector(Time=entry(), V14=entry())
    watched.update("Time", [1e6 + row for row in range(2500)])
    watched.update("V14", [1e6 + row for row in range(2500)])
    assert [alarm.series for alarm in watched.alarms()] == ["V14"]
    clock = watched.summary("Time")
    assert clock is not None and clock.divergence > clock.threshold and not clock.is_drifted


def test_a_series_that_the_release_does_not_know_is_left_out() -> None:
    watched = detector()
    watched.update("V99", normal(5000))
    assert watched.summary("V99") is None
    assert watched.summary("V14") is None  # no window is full


@pytest.mark.parametrize(
    "broken",
    [
        {"rows": 0},
        {"features": None},
        {"features": {"V14": {"edges": [1.0]}}},
        {"features": {"V14": entry(shares=[0.1] * 9)}},
        {"features": {"V14": entry(shares=[0.2] * 10)}},
        {"features": {"V14": entry(edges=DECILES[::-1])}},
        {"features": {"V14": entry(edges=[*DECILES[:8], math.inf])}},
    ],
)
def test_a_reference_that_makes_no_sense_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reference"):
        Reference.from_document({**document(V14=entry()), **broken})


def test_the_state_of_another_release_is_refused() -> None:
    watched = detector(V14=entry())
    watched.update("V14", normal(100))
    state = watched.state()
    with pytest.raises(ValueError, match="other series"):
        DriftDetector.restored(Reference.from_document(document(V15=entry())), SETTINGS, state)
    fewer = document(V14=entry(edges=[0.0], shares=[0.5, 0.5]))
    with pytest.raises(ValueError, match="other bins"):
        DriftDetector.restored(Reference.from_document(fewer), SETTINGS, state)


@pytest.mark.parametrize("freedom", [9, 19, 31])
@pytest.mark.parametrize("tail", [0.05, 1e-6, 1e-10])
def test_the_quantile_is_that_of_scipy(freedom: int, tail: float) -> None:
    from scipy.stats import chi2

    expected = chi2.isf(tail, freedom)
    assert chi2_quantile(freedom, -NormalDist().inv_cdf(tail)) == pytest.approx(expected, rel=0.06)
