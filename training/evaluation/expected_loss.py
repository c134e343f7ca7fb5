"""Review for expected loss: what neither model suspects enough, but would cost more than looking at it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import GroundTruth

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Below 1 a review costs more than it is expected to save.
MULTIPLIERS = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True)
class ExpectedLoss:
    """A transaction is reviewed when ``fraud_probability * Amount >= multiplier * review_cost``.

    Attributes
    ----------
    multiplier : float
        Lambda: how much more than its cost a review must be expected to save; > 0.
    review_cost : float
        Account currency; > 0.

    Notes
    -----
    With a calibrated probability and a multiplier of 1 the rule is that of Elkan (2001), eq. 2, for costs
    that depend on the transaction: approving costs ``p * Amount`` on average, reviewing ``review_cost``.
    """

    multiplier: float
    review_cost: float

    @property
    def bound(self) -> float:
        """Expected loss from which a transaction is reviewed, account currency."""
        return self.multiplier * self.review_cost

    def raised(self, probability: Floats, amount: Floats) -> Bools:
        """Return which transactions [n] are to be reviewed for their expected loss."""
        return probability * amount >= self.bound

    def as_document(self) -> dict[str, float]:
        """Return the form in which a release carries it."""
        return {"lambda": self.multiplier, "review_cost": self.review_cost, "bound": self.bound}


def choose_expected_loss(
    probability: Floats, alarm: Bools, truth: GroundTruth, review_cost: float, capacity: float
) -> ExpectedLoss | None:
    """Choose the multiplier that is expected to save most within the review capacity, on validation rows.

    Parameters
    ----------
    probability : float64 array of shape (n,)
        Calibrated probability of fraud.
    alarm : bool array of shape (n,)
        Whether a model is alarmed: these are looked at in any case, and count towards the capacity.
    capacity : float
        Most transactions that may be reviewed or declined, as a share of the stream.

    Returns
    -------
    ExpectedLoss or None
        None when even the largest multiplier exceeds the capacity.

    Notes
    -----
    The saving expected of a rule is the sum of ``p * Amount - review_cost`` over what it reviews. What was
    saved in fact hangs on the one or two largest of some 70 frauds: chosen by that, the multiplier was 64 on
    2 of 5 splits of the ULB subset.
    """
    best, most = None, -np.inf
    gain = truth.weight * (probability * truth.amount - review_cost)
    for multiplier in MULTIPLIERS:
        rule = ExpectedLoss(multiplier, review_cost)
        looked_at = alarm | rule.raised(probability, truth.amount)
        expected = gain[looked_at].sum()
        if truth.weight[looked_at].sum() <= capacity * truth.weight.sum() and expected > most:
            best, most = rule, expected
    return best
