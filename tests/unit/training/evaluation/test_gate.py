import numpy as np
import pytest

from training.evaluation.gate import Candidate, judge
from training.evaluation.metrics import Criteria, Judged, Rows
from training.settings import GateSettings

SETTINGS = GateSettings(resamples=100)
ROWS = 4000


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    label = (rng.random(ROWS) < 0.03).astype(np.int8)
    return Rows(label, np.ones(ROWS), np.full(ROWS, 100.0))


def judged(rows, noise, seed=1):
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(3 - 5 * rows.label - noise * rng.normal(size=len(rows.label))))
    return Judged(score, score >= 0.5)


def ask(rows, challenger, champion, *, unseen=None, unseen_known=True, error=0.001, latency=0.5):
    return judge(
        candidate=Candidate(challenger, rows, error, latency),
        champion=champion,
        unseen=np.ones(ROWS, bool) if unseen is None else unseen,
        unseen_known=unseen_known,
        criteria=Criteria(),
        settings=SETTINGS,
        seed=0,
    )


def test_first_release_passes(rows):
    verdict = ask(rows, judged(rows, 1.0), None)
    assert verdict.passed
    assert verdict.sentence() == "passed: there is no champion yet"


def test_better_and_equal_challengers_pass(rows):
    champion = judged(rows, 2.0)
    assert ask(rows, judged(rows, 0.5), champion).passed
    verdict = ask(rows, champion, champion)
    assert verdict.passed
    assert verdict.differences["average_precision"].value == 0


def test_worse_challenger_is_refused_with_figures(rows):
    verdict = ask(rows, judged(rows, 4.0), judged(rows, 0.5))
    assert not verdict.passed
    assert "average precision is certainly below the champion's (-0." in verdict.sentence()
    assert verdict.differences["average_precision"].high < 0


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"error": 0.2}, "calibration error 0.2000 is above 0.005"),
        ({"error": float("nan")}, "calibration error"),
        ({"latency": 9.0}, "9.00 ms for one transaction is above 5 ms"),
    ],
)
def test_uncalibrated_or_slow_challenger_is_refused(rows, trouble, words):
    verdict = ask(rows, judged(rows, 0.5), None, **trouble)
    assert not verdict.passed
    assert words in verdict.sentence()


def test_rows_the_champion_was_fitted_on_are_left_out(rows):
    unseen = np.zeros(ROWS, bool)
    unseen[np.flatnonzero(rows.label)[:3]] = True
    verdict = ask(rows, judged(rows, 4.0), judged(rows, 0.5), unseen=unseen)
    assert verdict.passed
    assert "only 3 test frauds are new to both" in verdict.sentence()


def test_comparison_on_rows_the_champion_may_know_says_so(rows):
    known = ask(rows, judged(rows, 0.5), judged(rows, 0.5, seed=2))
    unknown = ask(rows, judged(rows, 0.5), judged(rows, 0.5, seed=2), unseen_known=False)
    assert unknown.sentence().startswith(known.sentence())
    assert "which of them the champion was fitted on is unknown" in unknown.sentence()
    assert "unknown" not in known.sentence()
