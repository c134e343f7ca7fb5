"""Rows are recognised after an export with other types, digits, order or first row."""

import numpy as np
import pytest

from tests.factories import make_frame
from training.data.row_keys import TransactionKeys
from training.data.transactions import FEATURES, from_frame

FRAME = make_frame(3000, seed=1)
NUMBERS = list(FEATURES)


def keys(frame):
    return TransactionKeys.of(from_frame(frame, "a"), np.arange(len(frame)))


@pytest.mark.parametrize(
    "export",
    [
        lambda f: f.assign(Time=f["Time"] + 3600),
        lambda f: f.assign(**{name: f[name].astype(np.float32).astype(float) for name in NUMBERS}),
        lambda f: f.assign(**{name: f[name].round(9) for name in NUMBERS}),
        lambda f: f.assign(**{name: f[name].round(6) for name in NUMBERS}),
        lambda f: f.iloc[::-1],
        lambda f: f.assign(transaction_id=[f"T-{i}" for i in range(len(f))]),  # ids on one side only
    ],
    ids=["time", "float32", "9 digits", "6 digits", "order", "ids"],
)
def test_the_same_transactions_are_found(export):
    assert keys(export(FRAME)).found_in(keys(FRAME)).mean() > 0.999


def test_other_transactions_are_not_found():
    assert not keys(make_frame(3000, seed=2)).found_in(keys(FRAME)).any()


def test_ids_decide_where_both_have_them():
    first = FRAME.assign(transaction_id=[f"T-{i}" for i in range(3000)])
    second = FRAME.assign(transaction_id=[f"T-{i + 1000}" for i in range(3000)])
    found = keys(second).found_in(keys(first))
    assert found.tolist() == [True] * 2000 + [False] * 1000


@pytest.mark.parametrize("ids", [True, False])
def test_keys_are_read_back_and_joined(tmp_path, ids):
    frame = FRAME.assign(transaction_id=[f"T-{i}" for i in range(3000)]) if ids else FRAME
    keys(frame[:1000]).save(tmp_path / "keys.npz")
    stored = TransactionKeys.load(tmp_path / "keys.npz")
    assert keys(frame).found_in(stored).sum() == 1000
    assert keys(frame).found_in(stored.joined(keys(frame[2000:]))).sum() == 2000
