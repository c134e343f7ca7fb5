"""Rows as models take them and metrics judge them: features beside what is known to be true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.transactions import FloatArray, Transactions


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What is known about some rows, whichever model scores them.

    Attributes
    ----------
    label : int8 array of shape (n,)
        1 for fraud.
    weight : float64 array of shape (n,)
        Transactions of the stream a row stands for; > 0.
    amount : float64 array of shape (n,)
        Account currency.
    """

    label: NDArray[np.int8]
    weight: FloatArray
    amount: FloatArray

    def only(self, mask: NDArray[np.bool_]) -> GroundTruth:
        """Return the rows that `mask` selects."""
        return GroundTruth(self.label[mask], self.weight[mask], self.amount[mask])


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Features of some rows, as the models score them, with what is true about them."""

    features: NDArray[np.float32]  # [n, 30] raw
    truth: GroundTruth


def labelled_rows(data: Transactions, rows: NDArray[np.intp]) -> LabelledRows:
    """Return the rows of a part as the models take them."""
    truth = GroundTruth(data.required_label[rows], data.sample_weight[rows], data.amount[rows])
    return LabelledRows(data.features[rows].astype(np.float32), truth)
