import numpy as np
import pytest

from training.data.labelled import GroundTruth
from training.evaluation.gate import Candidate, judge
from training.evaluation.metrics import Criteria, ModelOutput
from training.settings.sections import GateSettings

SETTINGS = GateSettings(resamples=100)
ROWS = 4000


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    label = (rng.random(ROWS) < 0.03).astype(np.int8)
    return GroundTruth(label, np.ones(ROWS), np.full(ROWS, 100.0))


def output(truth, noise, seed=1):
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(3 - 5 * truth.label - noise * rng.normal(size=len(truth.label))))
    return ModelOutput(score, score >= 0.5)


def ask(truth, challenger, champion, *, unseen=None, unseen_known=True, error=0.001, latency=0.5):
    return judge(
        candidate=Candidate(challenger, truth, error, latency),
        champion=champion,
        unseen=np.ones(ROWS, bool) if unseen is None else unseen,
        unseen_known=unseen_known,
        criteria=Criteria(),
        settings=SETTINGS,
        seed=0,
    )


def test_first_release_passes(truth):
    verdict = ask(truth, output(truth, 1.0), None)
    assert verdict.passed
    assert verdict.sentence() == "passed: there is no champion yet"


def test_better_and_equal_challengers_pass(truth):
    champion = output(truth, 2.0)
    assert ask(truth, output(truth, 0.5), champion).passed
    verdict = ask(truth, champion, champion)
    assert verdict.passed
    assert verdict.differences["average_precision"].value == 0


def test_worse_challenger_is_refused_with_figures(truth):
    verdict = ask(truth, output(truth, 4.0), output(truth, 0.5))
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
def test_uncalibrated_or_slow_challenger_is_refused(truth, trouble, words):
    verdict = ask(truth, output(truth, 0.5), None, **trouble)
    assert not verdict.passed
    assert words in verdict.sentence()


def test_rows_the_champion_was_fitted_on_are_left_out(truth):
    unseen = np.zeros(ROWS, bool)
    unseen[np.flatnonzero(truth.label)[:3]] = True
    verdict = ask(truth, output(truth, 4.0), output(truth, 0.5), unseen=unseen)
    assert verdict.passed
    assert "only 3 test frauds are new to both" in verdict.sentence()


def test_comparison_on_rows_the_champion_may_know_says_so(truth):
    known = ask(truth, output(truth, 0.5), output(truth, 0.5, seed=2))
    unknown = ask(truth, output(truth, 0.5), output(truth, 0.5, seed=2), unseen_known=False)
    assert unknown.sentence().startswith(known.sentence())
    assert "which of them the champion was fitted on is unknown" in unknown.sentence()
    assert "unknown" not in known.sentence()
