"""How long a stored model takes, alone on one core: what serving adds comes on top."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.scoring.scorer import ReleaseScorer

# Calls per size: enough for a p99 of single rows, short enough for every training.
CALLS = {1: 300, 1000: 60}


def measure_latency(scorer: ReleaseScorer, features: NDArray[np.float32]) -> dict[str, dict[str, float]]:
    """Return milliseconds p50 and p99 for 1 and 1000 rows of each model.

    Returns
    -------
    dict of model to dict of metric to milliseconds
        Metrics are ``latency_ms_p50_rows_1`` and so on.
    """
    models = {"neural_net": scorer.network_scores, "xgboost": scorer.tree_scores}
    return {name: _latencies(score, features) for name, score in models.items()}


def _latencies(
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]], features: NDArray[np.float32]
) -> dict[str, float]:
    result = {}
    for rows, calls in CALLS.items():
        batch = np.resize(features, (rows, features.shape[1]))
        seconds = [_seconds(score, batch) for _ in range(calls)][calls // 10 :]  # the first ones warm up
        for percent in (50, 99):
            result[f"latency_ms_p{percent}_rows_{rows}"] = float(np.percentile(seconds, percent)) * 1000
    return result


def _seconds(
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]], batch: NDArray[np.float32]
) -> float:
    started = time.perf_counter()
    score(batch)
    return time.perf_counter() - started
