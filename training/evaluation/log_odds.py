"""Probabilities to log-odds and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def logit(p: NDArray[np.floating], epsilon: float = 1e-7) -> Floats:
    """Return log-odds of probabilities clipped to [epsilon, 1 - epsilon]."""
    clipped = np.clip(p.astype(np.float64), epsilon, 1 - epsilon)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(x: Floats) -> Floats:
    """Return probabilities of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))
