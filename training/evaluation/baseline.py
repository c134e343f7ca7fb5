"""The least a fraud model must beat: logistic regression on the same rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import LabelledRows

Floats = NDArray[np.float64]

# Genuine rows kept for each fraud: beyond it the ranking hardly changes, and fitting takes seconds longer.
GENUINE_PER_FRAUD = 50


def baseline_scores(train: LabelledRows, features: NDArray[np.float32], seed: int) -> Floats:
    """Fit logistic regression on training rows and return its ranking scores [n] of other rows.

    The scores rank; undersampling makes them too high to be probabilities. Labels without a pattern give a
    ranking without one, so that a release fitted on such labels does not beat it.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    label = train.truth.label
    frauds, genuine = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    kept = min(len(genuine), GENUINE_PER_FRAUD * len(frauds))
    rows = np.append(frauds, np.random.default_rng(seed).choice(genuine, kept, replace=False))
    scaler = StandardScaler().fit(train.features[rows].astype(np.float64))
    model = LogisticRegression(max_iter=1000)
    model.fit(scaler.transform(train.features[rows]), label[rows])
    return np.asarray(model.predict_proba(scaler.transform(features))[:, 1], np.float64)
