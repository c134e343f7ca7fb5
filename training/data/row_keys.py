"""A number that stands for a transaction, so that rows are recognised without being kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.transactions import FloatArray


def row_keys(features: FloatArray) -> NDArray[np.uint64]:
    """Return a number for each row, equal for equal rows (a collision would only keep two rows together)."""
    factors = np.random.default_rng(0).integers(
        0, 2**64, features.shape[1], np.uint64, endpoint=False
    ) | np.uint64(1)
    keys = np.zeros(len(features), np.uint64)
    for j in range(features.shape[1]):
        bits = features[:, j].copy().view(np.uint64)
        keys += (bits ^ (bits >> np.uint64(29))) * factors[j]
    return keys
