"""Numbers that stand for transactions, so that rows are recognised without being kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.transactions import FEATURES, FloatArray, Transactions

Keys = NDArray[np.uint64]

# Two halves of what an export keeps: Time is left out, since it is counted from the first row of a file.
_HALVES = (FEATURES[1:15], FEATURES[15:])
# Steps that values are rounded to: coarser than what float32 or nine decimals lose, finer than what tells
# transactions apart.
_STEPS_PER_UNIT = {"Amount": 100.0}
_STEPS_PER_COMPONENT = 1e4


@dataclass(frozen=True, eq=False)
class TransactionKeys:
    """Keys of some transactions that survive an export with other types, digits or first row.

    Attributes
    ----------
    ids : uint64 array of shape (n,), or None
        Of `transaction_id`, where there is one.
    halves : two uint64 arrays of shape (n,)
        Of V1 to V14, and of V15 to V28 and Amount, each rounded: a value that lies where rounding turns
        spoils one half at most.
    """

    ids: Keys | None
    halves: tuple[Keys, Keys]

    @classmethod
    def of(cls, data: Transactions, rows: NDArray[np.intp]) -> TransactionKeys:
        """Return the keys of some rows of a data set."""
        ids = None
        if data.transaction_id is not None:
            ids = np.asarray(pd.util.hash_array(data.transaction_id[rows], categorize=False), np.uint64)
        first, second = (_hash_rounded(data.features[rows], half) for half in _HALVES)
        return cls(ids, (first, second))

    def found_in(self, known: TransactionKeys) -> NDArray[np.bool_]:
        """Return which of these transactions [n] are among others: by id where both have ids."""
        if self.ids is not None and known.ids is not None:
            return np.isin(self.ids, known.ids)
        first, second = self.halves
        return np.isin(first, known.halves[0]) | np.isin(second, known.halves[1])

    def joined(self, other: TransactionKeys) -> TransactionKeys:
        """Return both sets of keys as one; ids only where both have them."""
        first, second = (np.append(a, b) for a, b in zip(self.halves, other.halves, strict=True))
        if self.ids is None or other.ids is None:
            return TransactionKeys(None, (first, second))
        return TransactionKeys(np.append(self.ids, other.ids), (first, second))

    def save(self, path: Path) -> None:
        """Write the keys as ``.npz``, sorted: their order would tell something."""
        first, second = (np.unique(half) for half in self.halves)
        if self.ids is None:
            np.savez_compressed(path, first=first, second=second)
        else:
            np.savez_compressed(path, first=first, second=second, ids=np.unique(self.ids))

    @classmethod
    def load(cls, path: Path) -> TransactionKeys:
        """Read keys that ``save`` wrote."""
        with np.load(path) as stored:
            return cls(stored.get("ids", None), (stored["first"], stored["second"]))


def row_keys(features: FloatArray) -> Keys:
    """Return a number for each row, equal for equal rows (a collision would only keep two rows together)."""
    return _hash_bits([features[:, j].copy().view(np.uint64) for j in range(features.shape[1])])


def _hash_rounded(features: FloatArray, columns: tuple[str, ...]) -> Keys:
    rounded = []
    for column in columns:
        # By way of float32: what was exported as such must round alike.
        values = features[:, FEATURES.index(column)].astype(np.float32).astype(np.float64)
        steps = np.rint(values * _STEPS_PER_UNIT.get(column, _STEPS_PER_COMPONENT)) + 0.0
        rounded.append(steps.view(np.uint64))
    return _hash_bits(rounded)


def _hash_bits(columns: list[Keys]) -> Keys:
    factors = np.random.default_rng(0).integers(
        0, 2**64, len(columns), np.uint64, endpoint=False
    ) | np.uint64(1)
    keys = np.zeros(len(columns[0]), np.uint64)
    for bits, factor in zip(columns, factors, strict=True):
        keys += (bits ^ (bits >> np.uint64(29))) * factor
    return keys
