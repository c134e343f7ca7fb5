"""What fitting watches on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from training.data.labelled import GroundTruth, LabelledRows

# Metrics by name, an entry for each epoch or boosting round.
History = list[dict[str, float]]
# Called after each epoch with its 1-based number and its metrics.
EpochReport = Callable[[int, Mapping[str, float]], None]


def ignore_epoch(_number: int, _figures: Mapping[str, float]) -> None:
    """Report nothing."""


def sample_validation_rows(validation: LabelledRows, genuine_rows: int, seed: int) -> LabelledRows:
    """Return all validation frauds, and at most `genuine_rows` genuine rows that stand for all of them."""
    truth = validation.truth
    genuine, fraud = np.flatnonzero(truth.label == 0), np.flatnonzero(truth.label == 1)
    weight = truth.weight.copy()
    if len(genuine) > genuine_rows:
        kept = np.random.default_rng(seed).choice(genuine, genuine_rows, replace=False)
        weight[kept] *= weight[genuine].sum() / weight[kept].sum()
        genuine = kept
    index = np.sort(np.concatenate([genuine, fraud]))
    return LabelledRows(
        validation.features[index], GroundTruth(truth.label[index], weight[index], truth.amount[index])
    )
