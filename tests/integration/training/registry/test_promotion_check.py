"""Which rows a challenger is compared on, and when a result holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training_fixtures import THIRD_PARTY_WARNINGS, copy_release, small_settings
from training.data.labelled import labelled_rows
from training.data.row_keys import TransactionKeys
from training.errors import LostFilesError
from training.registry.gate_record import staleness_reason
from training.registry.promotion_check import (
    FITTED_KEYS,
    challenger_of_training,
    run_gate,
    unseen_rows,
)

pytestmark = THIRD_PARTY_WARNINGS
LATENCY = {model: {"latency_ms_p50_rows_1": 0.1} for model in ("neural_net", "xgboost")}


@pytest.fixture
def champion(released):
    released.promote(released.release("1"))
    return released.require_champion()


@pytest.fixture
def challenger(released, champion, small_training):
    """Return a challenger: release 2, the same models on data that another file holds."""
    (number,) = copy_release(released)
    data = replace(small_training.data, fingerprint="another file")
    return challenger_of_training(released.release(number), replace(small_training, data=data), LATENCY)


def judged_on(challenger, rows):
    """Return the challenger with these rows of its data as its test part."""
    known = labelled_rows(challenger.data, rows)
    judged = replace(
        challenger.output, score=np.linspace(0, 1, len(rows)), alarm=known.truth.label == 1, looked_at=None
    )
    return replace(challenger, split=replace(challenger.split, test=rows), test=known, output=judged)


def test_release_knows_what_it_was_fitted_on(released, champion, small_training, tmp_path):
    known = TransactionKeys.load(released.fetch(champion, tmp_path) / FITTED_KEYS)
    split, data = small_training.split, small_training.data
    assert TransactionKeys.of(data, np.append(split.train, split.validation)).found_in(known).all()
    assert not TransactionKeys.of(data, split.test).found_in(known).any()


def test_champion_whose_files_are_gone_is_not_asked(released, champion, challenger, monkeypatch):
    def lost(release, into):
        raise LostFilesError(f"release {release.number} has lost its files")

    monkeypatch.setattr(released, "fetch", lost)
    result = run_gate(released, challenger, champion)
    assert "there is no champion to compare with; release 1 has lost its files" in result.sentence()


def test_rows_the_champion_was_fitted_on_are_not_compared_although_the_file_is_another(
    released, champion, challenger, small_training
):
    """Before the keys were kept, another fingerprint made all rows count as new to the champion."""
    result = run_gate(released, judged_on(challenger, small_training.split.train), champion)
    assert "only 0 test frauds are new to both" in result.sentence()
    result = run_gate(released, judged_on(challenger, small_training.split.test), champion)
    frauds = int(small_training.test.truth.label.sum())
    assert f"against the champion on {frauds} frauds" in result.sentence()
    assert "unknown" not in result.sentence()


def test_older_champion_without_keys(champion, challenger, small_training):
    nowhere = Path("no such file")
    assert unseen_rows(challenger, champion, nowhere) is None
    same = replace(challenger, data=small_training.data, settings=small_settings())
    assert unseen_rows(same, champion, nowhere).all()
    assert not unseen_rows(judged_on(same, small_training.split.train), champion, nowhere).any()


def test_result_holds_against_the_champion_it_was_about(released, champion, challenger, small_training):
    assert "never judged" in staleness_reason(challenger.release, champion)
    run_gate(released, judged_on(challenger, small_training.split.test), champion)
    judged = released.release("2")
    assert staleness_reason(judged, champion) is None
    (number,) = copy_release(released)
    released.promote(released.release(number))
    assert staleness_reason(judged, released.require_champion()) == (
        f"was judged against release 1, and release {number} is champion by now"
    )


def test_result_that_is_cut_short_counts_as_none(released, champion, challenger, monkeypatch):
    released.set_tag(challenger.release, "gate", "passed: long ago")
    set_tag = released.set_tag

    def cut(release, key, value):
        if key == "gate_against":
            raise KeyboardInterrupt
        set_tag(release, key, value)

    monkeypatch.setattr(released, "set_tag", cut)
    with pytest.raises(KeyboardInterrupt):
        run_gate(released, challenger, champion)
    assert "never judged" in staleness_reason(released.release("2"), champion)
