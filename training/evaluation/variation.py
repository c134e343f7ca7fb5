"""How far blocks of consecutive transactions are from the whole: the day's rhythm, which is no drift.

A feature of card payments follows the hour: of 2,500 consecutive transactions V3 can be as far from the
average of two days as a broken feed would be. A drift detector needs to know how far a
block strays while nothing is wrong.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Sizes of blocks, transactions: this one, then four times as many, and so on up to half the stream.
FIRST_BLOCK = 2500
GROWTH = 4
#: With fewer rows a block's shares are mostly noise.
MIN_ROWS = 200

FloatArray = NDArray[np.float64]


def block_variation(
    values: NDArray[np.floating], weights: FloatArray | None, edges: Sequence[float], shares: Sequence[float]
) -> list[dict[str, float]]:
    """Return the largest divergence of a block from the whole, for each size of block.

    Parameters
    ----------
    values : float array of shape (n,)
        A feature or score in order of Time.
    weights : float64 array of shape (n,), optional
        How many transactions of the stream each row stands for: of a validation part that is a fifth of the
        rows, five times their sample weights. Ones by default.
    edges : sequence of k float
        Inner edges of the bins, increasing; bin i holds ``edges[i-1] < x <= edges[i]``, in the precision of
        the values.
    shares : sequence of k + 1 float
        Shares of the whole.

    Returns
    -------
    list of dict
        ``rows`` (size of block, transactions) and ``divergence`` (population stability index, >= 0), sizes
        increasing; left out are sizes whose blocks would hold too few rows, and those above half the stream.

    Notes
    -----
    The index is ``sum((q - p) * ln(q / p))``, Jeffreys' divergence between block ``q`` and whole ``p``. Of
    shares that are the same it is ``k / n`` on average, n the effective number of rows (Kish): that much is
    taken off.
    """
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    whole = np.asarray(shares, np.float64)
    bins = np.searchsorted(np.asarray(edges, values.dtype), values, side="left")
    passed = np.cumsum(weight)
    found = []
    size = FIRST_BLOCK
    while 2 * size <= passed[-1] + 0.5:
        block = ((passed - weight / 2) // size).astype(np.intp)
        divergence = _largest(block, bins, weight, whole, int(passed[-1] // size))
        if divergence is not None:
            found.append({"rows": size, "divergence": divergence})
        size *= GROWTH
    return found


def _largest(
    block: NDArray[np.intp], bins: NDArray[np.intp], weight: FloatArray, whole: FloatArray, blocks: int
) -> float | None:
    """Return the largest divergence over the whole blocks; None when they are too small to tell."""
    kept = block < blocks  # the last one may be cut off
    place = block[kept] * len(whole) + bins[kept]
    counts = np.bincount(place, weight[kept], blocks * len(whole)).reshape(blocks, len(whole))
    totals = counts.sum(axis=1)
    squares = np.bincount(block[kept], weight[kept] ** 2, blocks)
    effective = totals**2 / np.maximum(squares, 1e-300)
    if effective.min() < MIN_ROWS:
        return None
    # Half a row in each bin, so that an empty one stays finite.
    pseudo = 0.5 / effective[:, None]
    q = (counts / totals[:, None] + pseudo) / (1 + pseudo * len(whole))
    p = (whole + pseudo) / (1 + pseudo * len(whole))
    divergence = ((q - p) * np.log(q / p)).sum(axis=1) - (len(whole) - 1) / effective
    return float(max(0.0, divergence.max()))
