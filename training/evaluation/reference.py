"""What a release's inputs and scores look like while nothing is wrong: drift is a difference from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.labelled import LabelledRows
from training.data.transactions import FEATURES
from training.evaluation.variation import block_variation

Floats = NDArray[np.float64]

# Equally full bins of the stream: enough to see a change of shape, and 2,500 transactions fill them.
BINS = 20
# An edge is a rounded quantile, not a value of somebody's transaction.
EDGE_DIGITS = 5


def describe_reference(
    rows: LabelledRows, scores: Mapping[str, Floats], probability: Floats, share_of_stream: float
) -> dict[str, Any]:
    """Return the distribution of labelled rows at the prevalence of the stream.

    Parameters
    ----------
    scores : mapping of str to float64 array of shape (n,)
        Of each model as it is served, for rows that it was not fitted on.
    probability : float64 array of shape (n,)
        Calibrated probability of fraud.
    share_of_stream : float
        Share of the stream's transactions the rows stand for, where they are drawn from all of it at random;
        1 where they are consecutive.

    Returns
    -------
    dict
        ``rows``, and for each feature, each score and the probability ``edges`` (k inner edges of bins, where
        bin i holds ``edges[i-1] < x <= edges[i]``), ``shares`` (k + 1, summing to 1) and ``variation``, how
        far blocks of consecutive transactions stray from the whole.
    """
    order = np.argsort(rows.features[:, 0], kind="stable")  # by Time
    weight = rows.truth.weight[order]

    def describe(values: NDArray[np.floating]) -> dict[str, Any]:
        return _describe(values[order], weight, share_of_stream)

    return {
        "rows": len(weight),
        "features": {name: describe(rows.features[:, i]) for i, name in enumerate(FEATURES)},
        "scores": {name: describe(values) for name, values in scores.items()},
        "fraud_probability": describe(probability),
    }


def _describe(values: NDArray[np.floating], weight: Floats, share_of_stream: float) -> dict[str, Any]:
    edges = _edges(values, weight)
    # Counted in the precision of the values: as float32 an amount of 1.98 is above 1.98, but in the stream,
    # which has it as float64, it is on the edge.
    bins = np.searchsorted(edges.astype(values.dtype), values, side="left")
    shares = np.bincount(bins, weight, len(edges) + 1) / weight.sum()
    variation = block_variation(values, weight / share_of_stream, edges.tolist(), shares.tolist())
    return {"edges": edges.tolist(), "shares": shares.tolist(), "variation": variation}


def _edges(values: NDArray[np.floating], weight: Floats) -> Floats:
    """Return weighted quantiles, rounded; fewer where many rows share a value."""
    order = np.argsort(values, kind="stable")
    passed = np.cumsum(weight[order]) / weight.sum()
    places = np.searchsorted(passed, np.arange(1, BINS) / BINS)
    quantiles = values[order][np.minimum(places, len(values) - 1)]
    return np.unique([float(f"{value:.{EDGE_DIGITS}g}") for value in quantiles])
