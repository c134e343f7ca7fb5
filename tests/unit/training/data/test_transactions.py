"""Transactions: fingerprint, weights, and the way back to a frame."""

import numpy as np
import pytest

from tests.factories import make_frame
from training.data.transactions import FEATURES, Transactions, from_frame
from training.errors import BadFileError


def test_the_fingerprint_is_of_the_content_not_of_the_name():
    frame = make_frame(100)
    assert from_frame(frame, "a").fingerprint == from_frame(frame[frame.columns[::-1]], "b").fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(V3=f["V3"] + 1e-6),
        lambda f: f.assign(Class=1 - f["Class"]),
        lambda f: f.assign(sample_weight=2.0),
        lambda f: f.assign(transaction_id=[f"T-{i}" for i in range(len(f))]),
        lambda f: f.iloc[::-1],
        lambda f: f.iloc[:-1],
        lambda f: f.rename(columns={"V1": "V2", "V2": "V1"}),
    ],
    ids=["value", "label", "weight", "id", "order", "length", "columns"],
)
def test_any_change_of_content_changes_the_fingerprint(change):
    frame = make_frame(100)
    assert from_frame(frame, "a").fingerprint != from_frame(change(frame), "a").fingerprint


def test_the_fingerprint_does_not_change_between_versions():
    frame = make_frame(3).assign(**dict.fromkeys(FEATURES, 1.5), Class=[0, 1, 0])
    expected = "2eac197594af"  # new fingerprints would make every release look trained on other data
    assert from_frame(frame, "a").fingerprint.startswith(expected)


def test_prevalence_is_that_of_the_stream_the_weights_stand_for():
    frame = make_frame(200, prevalence=0.1)
    frame["sample_weight"] = np.where(frame["Class"] == 1, 1.0, 10.0)
    assert from_frame(frame, "a").prevalence == pytest.approx(20 / (20 + 1800))


def test_a_frame_made_from_transactions_has_the_same_content():
    frame = make_frame(100).assign(transaction_id=[f"T-{i}" for i in range(100)], sample_weight=3.0)
    data = from_frame(frame, "a")
    again = from_frame(data.to_frame(), "b")
    assert again.fingerprint == data.fingerprint
    picked = data.to_frame(np.array([5, 3]))
    assert list(picked["transaction_id"]) == ["T-5", "T-3"]
    assert list(picked["V1"]) == list(frame["V1"].iloc[[5, 3]])


def test_rows_without_ids_are_numbered_from_one():
    assert list(from_frame(make_frame(3), "a").to_frame()["transaction_id"]) == ["1", "2", "3"]


def test_a_frame_lacking_columns_is_refused():
    with pytest.raises(BadFileError, match="columns V1, V2"):
        from_frame(make_frame(10).drop(columns=["V1", "V2"]), "a")


def test_transactions_cannot_be_reassigned():
    data: Transactions = from_frame(make_frame(10), "a")
    with pytest.raises(AttributeError):
        data.name = "b"  # type: ignore[misc]


def test_the_representation_shows_no_transaction():
    text = repr(from_frame(make_frame(10).assign(Amount=8765.43), "a"))
    assert "8765" not in text
    assert text.startswith("Transactions(name='a', fingerprint=")
