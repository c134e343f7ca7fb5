"""A change half-way through a simulated stream: frauds of another pattern, and a feature that shifts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.data.transactions import FEATURES
from training.errors import UsageError

COMPONENTS = list(FEATURES[1:29])  # V1 to V28


@dataclass(frozen=True)
class PatternChange:
    """What is different from some transaction on.

    Attributes
    ----------
    at : float
        Share of the transactions, in order of Time, that come before the change; in (0, 1).
    fraud_share : float
        Share of the frauds after the change that follow the new pattern, in [0, 1]. They are drawn as the
        others, then V1 to V28 change their sign: what set them apart points the other way. Models of the old
        pattern hardly see them; models that are fitted anew learn them as easily as the old ones.
    feature : str
        Feature that shifts for every transaction after the change, genuine ones too: V1 to V28.
    shift : float
        By how many standard deviations of the feature without the change; may be 0.
    """

    at: float
    fraud_share: float
    feature: str
    shift: float


def change_pattern(frame: pd.DataFrame, change: PatternChange, seed: int) -> pd.DataFrame:
    """Return simulated transactions with a change of pattern.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `simulate` returns it, in order of Time.
    change : PatternChange
    seed : int
        Chooses which frauds follow the new pattern; at least 0.

    Raises
    ------
    UsageError
        If nothing would lie before the change, or nothing after it, or there is no such feature.
    """
    start = round(len(frame) * change.at)
    if not 0 < start < len(frame) or change.feature not in COMPONENTS:
        raise UsageError(
            f"cannot change the pattern at {change.at} of {len(frame)} rows in {change.feature}: "
            "give a share between 0 and 1 that leaves rows on both sides, and a feature from V1 to V28"
        )
    changed = frame.copy()
    frauds = start + np.flatnonzero(frame["Class"].to_numpy()[start:])
    rng = np.random.default_rng([seed, 1])  # a stream of its own: the rows before stay as they were
    turned = rng.permutation(frauds)[: round(len(frauds) * change.fraud_share)]
    for name in COMPONENTS:
        values = frame[name].to_numpy(np.float64, copy=True)
        values[turned] *= -1
        changed[name] = values
    spread = float(frame[change.feature].std())
    shifted = changed[change.feature].to_numpy(copy=True)
    shifted[start:] = np.round(shifted[start:] + change.shift * spread, 6)
    changed[change.feature] = shifted
    return changed
