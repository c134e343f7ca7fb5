"""A change of the fraud pattern on the way: what was before stays, what comes after is as described."""

import numpy as np
import pandas as pd
import pytest

from training.data.pattern_change import COMPONENTS, PatternChange, change_pattern
from training.data.simulate import simulate, simulate_file
from training.data.transactions import FEATURES
from training.errors import UsageError
from training.settings.sections import SimulateSettings

CHANGE = PatternChange(at=0.5, fraud_share=0.7, feature="V14", shift=0.5)


@pytest.fixture(scope="module")
def before() -> pd.DataFrame:
    return simulate(20_000, seed=3, prevalence=0.02)


def test_rows_before_the_change_stay(before):
    after = change_pattern(before, CHANGE, seed=3)
    pd.testing.assert_frame_equal(after[:10_000], before[:10_000])
    assert list(after.columns) == list(before.columns)


def test_a_share_of_the_later_frauds_points_the_other_way(before):
    after = change_pattern(before, CHANGE, seed=3)[10_000:]
    old = before[10_000:]
    fraud = (old["Class"] == 1).to_numpy()
    turned = np.isclose(after["V17"], -old["V17"]) & (old["V17"] != 0).to_numpy()
    assert turned[fraud].sum() == round(0.7 * fraud.sum())
    assert not turned[~fraud].any()
    rest = [name for name in COMPONENTS if name != "V14"]
    assert np.allclose(after[rest][turned], -old[rest][turned])
    assert (after[["Time", "Amount", "Class"]] == old[["Time", "Amount", "Class"]]).all(axis=None)


def test_the_feature_shifts_for_everybody(before):
    after = change_pattern(before, CHANGE, seed=3)[10_000:]
    genuine = (before["Class"] == 0).to_numpy()[10_000:]
    moved = (after["V14"] - before["V14"][10_000:])[genuine]
    assert np.allclose(moved, 0.5 * before["V14"].std(), atol=1e-6)


def test_the_seed_decides_which_frauds(before):
    first = change_pattern(before, CHANGE, seed=3)
    assert first.equals(change_pattern(before, CHANGE, seed=3))
    assert not first.equals(change_pattern(before, CHANGE, seed=4))


@pytest.mark.parametrize("change", [{"at": 0.00001}, {"at": 0.99999}, {"feature": "Amount"}])
def test_a_change_that_leaves_a_side_empty_is_refused(before, change):
    with pytest.raises(UsageError, match="cannot change the pattern"):
        change_pattern(before, PatternChange(**{**vars(CHANGE), **change}), seed=3)


def test_the_file_has_ids_of_its_own_and_the_prevalence_that_was_asked_for(tmp_path):
    frames = []
    for seed in (1, 2):
        path = tmp_path / f"{seed}.parquet"
        said = simulate_file(
            SimulateSettings(
                rows=1000, seed=seed, output=path, prevalence=0.05, change_at=0.4, transaction_ids=True
            )
        )
        assert "50 frauds" in said and "after 40%" in said
        frames.append(pd.read_parquet(path))
    assert frames[0]["transaction_id"].iloc[[0, -1]].tolist() == ["sim-1-1", "sim-1-1000"]
    assert pd.concat(frames)["transaction_id"].is_unique
    assert frames[0]["Class"].sum() == 50
    plain = simulate(1000, 1, prevalence=0.05)
    assert not np.allclose(frames[0]["V14"][400:], plain["V14"][400:])


def test_the_file_has_the_columns_of_the_ulb_set_unless_ids_are_asked_for(tmp_path):
    path = tmp_path / "plain.parquet"
    simulate_file(SimulateSettings(rows=1000, seed=1, output=path))
    assert list(pd.read_parquet(path)) == [*FEATURES, "Class"]
