import json

import numpy as np
import pytest

from training.data.labelled import GroundTruth, LabelledRows
from training.data.simulate import simulate
from training.data.transactions import FEATURES, from_frame
from training.evaluation.reference import BINS, describe_reference


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((6000, 30)).astype(np.float32)
    features[:, 0] = rng.permutation(6000)
    features[:, 5] = 1.0  # never varies
    label = (np.arange(6000) < 600).astype(np.int8)
    return LabelledRows(features, GroundTruth(label, np.where(label == 1, 1.0, 9.0), np.ones(6000)))


@pytest.fixture(scope="module")
def reference(rows):
    score = rows.features[:, 1].astype(np.float64)
    return describe_reference(rows, {"neural_net": score, "xgboost": score}, score, 0.2)


def entries(reference):
    return [*reference["features"].values(), *reference["scores"].values(), reference["fraud_probability"]]


def test_every_feature_score_and_the_probability_are_described(reference):
    assert list(reference["features"]) == list(FEATURES)
    assert list(reference["scores"]) == ["neural_net", "xgboost"]
    assert reference["rows"] == 6000
    assert json.loads(json.dumps(reference)) == reference
    for entry in entries(reference):
        assert len(entry["shares"]) == len(entry["edges"]) + 1
        assert sum(entry["shares"]) == pytest.approx(1.0)
        assert entry["edges"] == sorted(set(entry["edges"]))
        assert [block["rows"] for block in entry["variation"]][:1] == [10_000]  # 2,500 stand on too few rows


def test_bins_are_equally_full_at_the_prevalence_of_the_stream(rows, reference):
    entry = reference["features"]["V1"]
    assert len(entry["shares"]) == BINS
    assert entry["shares"] == pytest.approx([1 / BINS] * BINS, abs=0.003)
    inside = np.digitize(rows.features[:, 1], entry["edges"], right=True)  # edges[i-1] < x <= edges[i]
    found = np.bincount(inside, rows.truth.weight, BINS) / rows.truth.weight.sum()
    assert entry["shares"] == pytest.approx(found.tolist())


def test_a_feature_that_never_varies_has_one_edge(reference):
    assert reference["features"]["V5"]["edges"] == [1.0]
    assert reference["features"]["V5"]["shares"] == [1.0, 0.0]


def test_an_amount_on_an_edge_is_counted_as_in_the_stream():
    """Seen: a tenth of the amounts had the other bin than in the stream, and an unchanged stream alarmed."""
    amounts = np.repeat([0.89, 1.0, 1.98, 9.99, 10.0, 19.99], 500)  # as float64, from the stream
    features = np.tile(amounts.astype(np.float32)[:, None], 30)
    truth = GroundTruth(np.zeros(3000, np.int8), np.ones(3000), amounts)
    reference = describe_reference(LabelledRows(features, truth), {}, amounts, 1.0)
    entry = reference["features"]["Amount"]
    bins = np.searchsorted(entry["edges"], amounts, side="left")
    assert entry["shares"] == (np.bincount(bins, minlength=len(entry["shares"])) / 3000).tolist()


def test_the_reference_is_of_the_models_that_are_served(small_training):
    """Seen: scores of the models before the last fit made the monitor alarm on an unchanged stream."""
    fresh = from_frame(simulate(4000, 99), "fresh").features.astype(np.float32)
    outputs = small_training.fitted.outputs(fresh)
    reference = small_training.reference
    expected = {**reference["scores"], "pair": reference["fraud_probability"]}
    for name, described in expected.items():
        shares = np.array(described["shares"])
        bins = np.searchsorted(described["edges"], outputs[name].score, side="left")
        found = np.bincount(bins, minlength=len(shares)) / len(fresh)
        divergence = float(((found - shares) * np.log((found + 1e-4) / (shares + 1e-4))).sum())
        assert divergence < 0.25, name  # some hundred rows alone give .1
