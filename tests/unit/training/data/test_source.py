import hashlib

import numpy as np
import pandas as pd
import pytest

from tests.training_fixtures import silent, small_settings
from training.data.source import apply_genuine_weight, read_data, write_held_out
from training.data.split import split_as, split_by_protocol, split_key
from training.data.transactions import load_transactions
from training.errors import SettingsError, UsageError
from training.registry.recipe import recipe_key


@pytest.fixture
def sample(tmp_path, few_transactions):
    path = tmp_path / "sample.parquet"
    few_transactions.to_frame().drop(columns=["sample_weight", "transaction_id"]).to_parquet(
        path, index=False
    )
    return path


def test_genuine_rows_stand_for_more_where_the_file_says_nothing(sample):
    plain = read_data(small_settings(data=sample), silent())
    data = read_data(small_settings(data=sample, genuine_weight=4.0), silent())
    assert set(data.sample_weight[data.required_label == 0]) == {4.0}
    assert set(data.sample_weight[data.required_label == 1]) == {1.0}
    assert data.fingerprint != plain.fingerprint


def test_known_sample_is_recognised_by_its_content(sample):
    digest = hashlib.sha256(sample.read_bytes()).hexdigest()
    data = read_data(small_settings(data=sample, known_samples={digest: 15.0}), silent())
    assert data.sample_weight.max() == 15.0


def test_own_weights_are_not_overridden(few_transactions):
    assert apply_genuine_weight(few_transactions, 1.0) is few_transactions
    with pytest.raises(SettingsError, match="sample_weight of its own"):
        apply_genuine_weight(few_transactions, 2.0)


@pytest.mark.parametrize("protocol", ["random", "temporal"])
def test_recorded_split_is_the_same_split(few_transactions, protocol):
    settings = small_settings(protocol=protocol, split={"seed": 3, "test_share": 0.3})
    split = split_as(split_key(settings), few_transactions, small_settings())
    assert (split.test == split_by_protocol(few_transactions, settings).test).all()


def test_held_out_part_is_in_order_of_time_and_complete(tmp_path, few_transactions):
    settings = small_settings(protocol="temporal")
    path = tmp_path / "held_out.parquet"
    write_held_out(few_transactions, settings, path)
    frame = pd.read_parquet(path)
    assert frame.columns.tolist()[-3:] == ["Class", "transaction_id", "sample_weight"]
    assert frame["Time"].is_monotonic_increasing
    test = split_by_protocol(few_transactions, settings).test
    assert len(frame) == len(test)
    assert frame["Class"].sum() == few_transactions.required_label[test].sum()
    assert (
        frame["Time"].min()
        >= few_transactions.time[split_by_protocol(few_transactions, settings).train].max()
    )
    assert np.isin(frame["sample_weight"], [1.0, 20.0]).all()
    assert len(load_transactions(path)) == len(test)


def test_held_out_part_is_written_again_only_when_stale(tmp_path, few_transactions):
    path = tmp_path / "held_out.parquet"
    write_held_out(few_transactions, small_settings(), path)
    written = path.stat().st_mtime_ns
    write_held_out(few_transactions, small_settings(), path)
    assert path.stat().st_mtime_ns == written
    write_held_out(few_transactions, small_settings(protocol="temporal"), path)
    assert path.stat().st_mtime_ns != written
    path.write_text("broken")
    write_held_out(few_transactions, small_settings(), path)
    assert len(pd.read_parquet(path)) > 0


@pytest.mark.parametrize("path", ["held_out.csv", "no/such/folder/held_out.parquet"])
def test_held_out_path_is_checked(tmp_path, few_transactions, path):
    with pytest.raises(UsageError):
        write_held_out(few_transactions, small_settings(), tmp_path / path)


def test_recipe_is_what_changes_the_models():
    assert recipe_key(small_settings()) == recipe_key(small_settings(threads=2, data="other.csv"))
    assert recipe_key(small_settings()) != recipe_key(small_settings(seed=8))
    assert recipe_key(small_settings()) != recipe_key(small_settings(decision={"review_cost": 2.0}))
