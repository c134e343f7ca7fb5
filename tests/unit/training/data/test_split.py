"""Splits: disjoint, complete, honest about repeats and time, repeatable."""

import numpy as np
import pandas as pd
import pytest

from tests.factories import make_frame
from training.data.split import Split, split_random, split_temporal
from training.data.transactions import Transactions, from_frame
from training.errors import DataError

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data() -> Transactions:
    return from_frame(make_frame(4_000), "tiny")


def rows_of(split: Split) -> np.ndarray:
    return np.concatenate([getattr(split, part) for part in PARTS])


@pytest.mark.parametrize("split", [lambda data: split_random(data, seed=1), split_temporal])
def test_every_row_is_in_exactly_one_part(data, split):
    assert np.array_equal(np.sort(rows_of(split(data))), np.arange(len(data)))


def test_random_parts_have_their_share_of_rows_and_of_frauds(data):
    split = split_random(data, seed=1, validation_fraction=0.2, test_fraction=0.1)
    for part, share in (("train", 0.7), ("validation", 0.2), ("test", 0.1)):
        rows = getattr(split, part)
        assert len(rows) / len(data) == pytest.approx(share, abs=0.005)
        assert data.label[rows].sum() / data.frauds == pytest.approx(share, abs=0.02)


def test_the_seed_decides_the_random_split(data):
    first, same, other = (split_random(data, seed=seed).test for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_exact_repeats_stay_on_one_side():
    frame = make_frame(600)
    data = from_frame(pd.concat([frame] * 4, ignore_index=True), "four times the same")
    split = split_random(data, seed=3)
    side = np.empty(len(data), int)
    for number, part in enumerate(PARTS):
        side[getattr(split, part)] = number
    assert (side.reshape(4, -1) == side[:600]).all()


def test_repeats_are_found_whatever_the_sign_of_zero():
    frame = make_frame(600)
    frame["V28"] = 0.0
    negative = frame.assign(V28=-0.0)
    data = from_frame(pd.concat([frame, negative], ignore_index=True), "zeros")
    test = split_random(data, seed=3).test
    assert set(test[test < 600] + 600) == set(test[test >= 600])


def test_temporal_parts_follow_each_other_and_share_no_second(data):
    split = split_temporal(data)
    assert data.time[split.train].max() < data.time[split.validation].min()
    assert data.time[split.validation].max() < data.time[split.test].min()
    assert (np.diff(data.time[rows_of(split)]) >= 0).all()


def test_temporal_fractions_count_transactions_of_the_stream():
    frame = make_frame(4_000)
    frame["sample_weight"] = np.where(np.arange(4_000) < 2_000, 9.0, 1.0)
    split = split_temporal(from_frame(frame, "weighted"), test_fraction=0.1, validation_fraction=0.4)
    assert len(split.test) == pytest.approx(2_000, abs=20)


def test_too_few_frauds_are_reported_with_their_number():
    data = from_frame(make_frame(500, prevalence=0.004), "poor")
    with pytest.raises(
        DataError, match=r"poor: the random split leaves the test part with 75 rows and 0 of 2 frauds"
    ):
        split_random(data, seed=0)


def test_splitting_needs_labels():
    data = from_frame(make_frame(50).drop(columns="Class"), "unlabelled")
    with pytest.raises(DataError, match="no column Class"):
        split_temporal(data)
