"""Invented transactions with the statistics of the real set (first draft; the full one follows)."""

import numpy as np
import pandas as pd

PREVALENCE = 492 / 284_807


def simulate(rows: int, seed: int) -> pd.DataFrame:
    """Return `rows` invented transactions in order of Time: the 31 columns of a data file."""
    rng = np.random.default_rng(seed)
    label = np.zeros(rows, np.int8)
    label[: max(2, round(rows * PREVALENCE))] = 1
    rng.shuffle(label)
    features = rng.standard_t(4, (rows, 28)) * np.linspace(1.6, 0.3, 28)
    strength = rng.gamma(2.0, 1.0, rows) * label
    features[:, [2, 9, 11, 13, 15, 16]] -= strength[:, None] * 1.2
    features[:, [1, 3, 10]] += strength[:, None]
    frame = pd.DataFrame(np.clip(features, -900, 900), columns=[f"V{i}" for i in range(1, 29)])
    frame.insert(0, "Time", np.sort(rng.integers(0, 172_793, rows)).astype(float))
    frame["Amount"] = np.round(np.minimum(rng.lognormal(3.1, 1.6, rows), 25_000), 2)
    frame["Class"] = label
    return frame
