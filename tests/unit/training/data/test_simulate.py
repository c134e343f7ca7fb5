"""Simulated transactions: a data file's columns, seeded, within the limits of a transaction."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import training.data.simulate as module
from training.data.simulate import PREVALENCE, simulate
from training.data.transactions import FEATURES
from training.errors import UsageError

PARAMETERS = json.loads(Path(module.__file__).with_name("simulation_parameters.json").read_text())


def test_the_columns_and_kinds_are_those_of_a_data_file():
    frame = simulate(1_000, seed=1)
    assert list(frame.columns) == [*FEATURES, "Class"]
    assert (frame[list(FEATURES)].dtypes == np.float64).all()
    assert frame["Class"].dtype == np.int8
    assert len(frame) == 1_000


def test_the_seed_decides():
    first = simulate(5_000, seed=1)
    assert first.equals(simulate(5_000, seed=1))
    assert not first.equals(simulate(5_000, seed=2))


@pytest.mark.parametrize(
    ("rows", "prevalence", "frauds"),
    [(28_480, PREVALENCE, 49), (2, PREVALENCE, 1), (10, 0.99, 9), (1_000, 0.1, 100)],
)
def test_the_share_of_fraud_is_exact_and_both_classes_are_there(rows, prevalence, frauds):
    assert simulate(rows, seed=0, prevalence=prevalence)["Class"].sum() == frauds


def test_values_stay_within_the_limits_of_a_transaction():
    frame = simulate(100_000, seed=3, prevalence=0.2)
    assert frame["Time"].is_monotonic_increasing
    assert frame["Time"].between(0, 172_800).all()
    assert (frame["Time"] % 1 == 0).all()
    assert frame["Amount"].between(0, 30_000).all()
    assert np.allclose(frame["Amount"], frame["Amount"].round(2), atol=1e-9)
    assert frame[[f"V{i}" for i in range(1, 29)]].abs().max().max() < 200
    assert np.isfinite(frame.to_numpy()).all()


def test_some_rows_are_exact_repeats_as_in_the_real_set():
    frame = simulate(50_000, seed=1, prevalence=0.01)
    assert 0.002 < frame.duplicated().mean() < 0.006
    assert 0.02 < frame[frame["Class"] == 1].duplicated().mean() < 0.06


@pytest.mark.parametrize("arguments", [{"rows": 1}, {"seed": -1}, {"prevalence": 0.0}, {"prevalence": 1.0}])
def test_what_cannot_be_simulated_is_refused(arguments):
    with pytest.raises(UsageError, match="cannot simulate"):
        simulate(**{"rows": 100, "seed": 1} | arguments)


@pytest.mark.parametrize("kind", ["genuine", "fraud"])
def test_the_shares_of_a_mixture_add_up(kind):
    assert sum(PARAMETERS["mixture"][kind].values()) == pytest.approx(1, abs=1e-3)
    assert set(PARAMETERS["mixture"][kind]) <= set(PARAMETERS["groups"])
    assert len(PARAMETERS["hourly"][kind]) == 48
    assert sum(PARAMETERS["hourly"][kind]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", list(PARAMETERS["groups"]))
def test_a_group_maps_its_latent_variable_monotonely_and_its_correlation_is_one(name):
    group = PARAMETERS["groups"][name]
    assert list(group["knots"]) == list(FEATURES[1:])
    for column, values in group["knots"].items():
        latent = group["amount_latent" if column == "Amount" else "latent"]
        assert len(values) == len(latent)
        assert (np.diff(latent) > 0).all()
        assert (np.diff(values) >= 0).all()
    factor = module._factor(name)
    assert np.diagonal(factor @ factor.T) == pytest.approx(1)


def test_importing_it_brings_no_model_library():
    heavy = {"bentoml", "mlflow", "sklearn", "torch", "xgboost"}
    code = f"import sys, training.data.simulate; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
