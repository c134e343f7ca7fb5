"""How far blocks stray from the whole: nothing without a rhythm, much with one, whatever the weights."""

import numpy as np
import pytest

from training.evaluation.variation import block_variation

EDGES = [
    float(edge)
    for edge in np.quantile(np.random.default_rng(0).standard_normal(100_000), np.arange(1, 10) / 10)
]
SHARES = [0.1] * 10


def test_rows_in_no_order_hardly_vary():
    found = block_variation(np.random.default_rng(1).standard_normal(100_000), None, EDGES, SHARES)
    assert [one["rows"] for one in found] == [2500, 10_000, 40_000]
    assert all(one["divergence"] < 0.01 for one in found)


def test_a_rhythm_shows_where_a_block_is_shorter_than_it():
    values = np.random.default_rng(1).standard_normal(100_000)
    wave = np.sin(2 * np.pi * np.arange(100_000) / 20_000)  # five rounds
    small, middle, large = (one["divergence"] for one in block_variation(values + wave, None, EDGES, SHARES))
    assert small > middle > 0.2
    # Two rounds in a block: only that the wave widens the values is left, in every block alike.
    assert large < 0.5 * middle


def test_a_shift_of_a_known_size_has_the_divergence_of_theory():
    """Two normals a distance d apart have Jeffreys' divergence d squared; ten bins keep most of it."""
    values = np.random.default_rng(1).standard_normal(40_000)
    values[:10_000] += 0.5
    found = {one["rows"]: one["divergence"] for one in block_variation(values, None, EDGES, SHARES)}
    assert found[10_000] == pytest.approx(0.25, abs=0.04)


def test_weighted_rows_stand_for_their_transactions():
    values = np.random.default_rng(1).standard_normal(20_000)
    found = block_variation(values, np.full(20_000, 5.0), EDGES, SHARES)
    assert [one["rows"] for one in found] == [2500, 10_000, 40_000]
    # Blocks of 166 rows are too small to tell anything.
    coarse = block_variation(values, np.full(20_000, 15.0), EDGES, SHARES)
    assert [one["rows"] for one in coarse] == [10_000, 40_000]


def test_a_small_set_has_no_blocks():
    assert block_variation(np.zeros(4000), None, EDGES, SHARES) == []
