import numpy as np
import pytest

from training.evaluation.log_odds import logit, sigmoid
from training.models.sampling import correct_prior, prior_shift, undersample


def test_keeps_every_fraud_and_the_wanted_genuine_rows():
    label = np.array([0, 1] * 5 + [0] * 90, np.int8)
    sample = undersample(label, np.ones(100), 4.0, np.random.default_rng(0))
    assert label[sample.rows].sum() == 5
    assert (label[sample.rows] == 0).sum() == 20
    assert sample.kept_share == pytest.approx(20 / 95)
    assert (np.diff(sample.rows) > 0).all()


@pytest.mark.parametrize("ratio", [0.0, 1000.0])
def test_keeps_everything_when_told_to_or_when_there_is_not_more(ratio):
    label = np.array([0] * 9 + [1], np.int8)
    sample = undersample(label, np.full(10, 3.0), ratio, np.random.default_rng(0))
    assert len(sample.rows) == 10
    assert sample.kept_share == 1.0
    assert sample.weight.mean() == pytest.approx(1.0)


def test_shift_is_the_correction_in_log_odds():
    score = np.array([0.01, 0.3, 0.9])
    assert sigmoid(logit(score) + prior_shift(0.2)) == pytest.approx(correct_prior(score, 0.2))


def test_correction_gives_back_the_probability_of_the_stream():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.01, 0.5, 200_000)
    label = (rng.random(len(truth)) < truth).astype(np.int8)
    sample = undersample(label, np.ones(len(label)), 0.5, rng)
    inside = np.abs(truth[sample.rows] - 0.2) < 0.02
    observed = label[sample.rows][inside].mean()
    corrected = correct_prior(np.array([observed]), sample.kept_share)[0]
    assert observed > 0.4
    assert corrected == pytest.approx(0.2, abs=0.02)
