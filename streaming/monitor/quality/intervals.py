"""Intervals for shares, ratios and paired differences, in closed form.

Closed forms instead of a resampling: they need sums alone, which the cells keep, and no numerical library.
"""

from collections.abc import Iterable
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple


class Figure(NamedTuple):
    """A figure with its interval.

    Attributes
    ----------
    value, low, high : float or None
        None where nothing is known.
    n : int
        How many transactions it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def unknown(n: int = 0) -> Figure:
    """Return a figure that nothing is known about."""
    return Figure(None, None, None, n)


def quantile_of(confidence: float) -> float:
    """Return how many standard deviations a two-sided interval reaches.

    Examples
    --------
    >>> round(quantile_of(0.95), 6)
    1.959964
    """
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def share(hits: float, n: int, z: float) -> Figure:
    """Return a share with Wilson's score interval (Wilson 1927; Brown, Cai and DasGupta 2001).

    Examples
    --------
    >>> figure = share(8, 10, 1.959964)
    >>> round(figure.low, 4), figure.value, round(figure.high, 4)
    (0.4902, 0.8, 0.9433)
    >>> share(0, 0, 1.96)
    Figure(value=None, low=None, high=None, n=0)
    """
    if n <= 0:
        return unknown()
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding must not push the bound past a share of nothing or all.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == n else min(1.0, middle + half)
    return Figure(p, low, high, n)


def paired_difference(only_first: int, only_second: int, n: int, z: float) -> Figure:
    """Return second share minus first, both on the same `n` (Agresti and Min 2005: half a hit in each cell).

    Examples
    --------
    >>> figure = paired_difference(2, 12, 100, 1.959964)
    >>> figure.value, figure.low > 0
    (0.1, True)
    """
    if n <= 0:
        return unknown()
    b, c, total = only_first + 0.5, only_second + 0.5, n + 2.0
    middle = (c - b) / total
    half = z * sqrt(max(0.0, b + c - (c - b) ** 2 / total)) / total
    return Figure((only_second - only_first) / n, max(-1.0, middle - half), min(1.0, middle + half), n)


def linearised(value: float, squares: float, n: int, z: float) -> Figure:
    """Return a ratio with its interval from the sum of its squared influences.

    Parameters
    ----------
    squares : float
        Sum over independent transactions of (influence on the ratio) squared: the delta method, with the
        number of transactions itself at random (Poisson).
    """
    half = z * sqrt(max(0.0, squares))
    return Figure(value, value - half, value + half, n)


def quantile(counts: Iterable[int], bounds: Iterable[float], p: float, z: float) -> Figure:
    """Return a quantile of counts in bins, straight within a bin, bounds by order statistics.

    Parameters
    ----------
    counts : iterable of int
        Of the bins up to each bound, and of what lies above the last.
    bounds : iterable of float
        Upper bounds, ascending from the first bin's.

    Examples
    --------
    >>> quantile([0, 10, 10, 0], [0, 60, 120], 0.5, 1.96).value
    60.0
    """
    counts, bounds = list(counts), list(bounds)
    n = sum(counts)
    if n == 0:
        return unknown()
    half = z * sqrt(p * (1 - p) / n)
    low, high = max(0.0, p - half), min(1.0, p + half)
    value, low, high = (_place(counts, bounds, at * n) for at in (p, low, high))
    return Figure(value, low, high, n)


def _place(counts: list[int], bounds: list[float], rank: float) -> float:
    passed = 0
    lower = 0.0
    for count, upper in zip(counts, bounds, strict=False):
        if count and rank <= passed + count:
            return lower + (upper - lower) * max(0.0, rank - passed) / count
        passed += count
        lower = upper
    return lower


def weighted_shares(strata: Iterable[tuple[int, int, int]], confidence: float) -> tuple[Figure, Figure]:
    """Return the share of frauds in all strata, and the part of them in the first stratum, from samples.

    Parameters
    ----------
    strata : iterable of (decided, sampled, frauds among the sampled)
        Each sampled transaction stands for decided / sampled. First the alarmed, then the others: the part
        in the first is the recall.
    confidence : float
        Holds jointly: each stratum's Wilson interval is taken at a higher one (Bonferroni), and the
        ratio, which rises with one share and falls with the other, at their ends.

    Examples
    --------
    >>> rate, recall = weighted_shares([(10, 10, 8), (1000, 100, 0)], 0.95)
    >>> rate.value == 8 / 1010, recall.value, recall.high
    (True, 1.0, 1.0)
    """
    strata = list(strata)
    z = quantile_of(1 - (1 - confidence) / len(strata))
    n = sum(sampled for _, sampled, _ in strata)
    shares = [
        Figure(0.0, 0.0, 0.0, 0) if decided == 0 else share(frauds, sampled, z)
        for decided, sampled, frauds in strata
    ]
    sizes = [decided for decided, *_ in strata]
    total = sum(sizes)
    if total == 0 or any(one.value is None for one in shares):
        return unknown(n), unknown(n)
    values, lows, highs = (
        [size * (one[at] or 0.0) for size, one in zip(sizes, shares, strict=True)] for at in range(3)
    )
    rate = Figure(sum(values) / total, sum(lows) / total, sum(highs) / total, n)
    if sum(values) == 0:
        return rate, unknown(n)
    low = lows[0] / (lows[0] + sum(highs[1:])) if lows[0] else 0.0
    high = highs[0] / (highs[0] + sum(lows[1:])) if highs[0] else 0.0
    return rate, Figure(values[0] / sum(values), low, high, n)
