"""How the features and scores of a release were distributed in its training data."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class SeriesReference:
    """How a feature or a score was distributed in the data that the release was fitted on.

    Attributes
    ----------
    edges : tuple of k float
        Inner edges, increasing; bin i holds ``edges[i-1] < x <= edges[i]``.
    shares : tuple of k + 1 float
        Share of each bin, in [0, 1].
    variation : tuple of (int, float)
        Size of block, transactions, and the greatest divergence of one; sizes increasing, may be empty.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    variation: tuple[tuple[int, float], ...] = ()

    def variation_of(self, rows: int) -> float:
        """Return how far a window of `rows` transactions may stray without drift.

        Below the smallest block that was measured it is as large as there; above the largest it falls with
        the size, as the mean of more and more blocks does.
        """
        known = self.variation
        if not known:
            return 0.0
        size, divergence = next((one for one in known if one[0] >= rows), known[-1])
        return divergence * min(1.0, size / rows)


@dataclass(frozen=True)
class Reference:
    """All series of a release, by name, and the number of rows they rest on."""

    rows: int
    series: Mapping[str, SeriesReference]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read ``reference`` of ``GET /info``.

        Raises
        ------
        ValueError
            If a part is missing or makes no sense.
        """
        try:
            named = {
                **document["features"],
                **document["scores"],
                "fraud_probability": document["fraud_probability"],
            }
            series = {name: _read_series(name, found) for name, found in named.items()}
            rows = int(document["rows"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the release's reference cannot be read: {error!r}") from error
        if rows < 1:
            raise ValueError("the release's reference rests on no rows")
        return cls(rows, series)


def _read_series(name: str, found: Mapping[str, Any]) -> SeriesReference:
    edges = tuple(float(edge) for edge in found["edges"])
    shares = tuple(float(share) for share in found["shares"])
    variation = tuple((int(one["rows"]), float(one["divergence"])) for one in found.get("variation") or ())
    rising = all(low < high for low, high in itertools.pairwise(edges))
    if len(shares) != len(edges) + 1 or not rising or not all(map(math.isfinite, edges)):
        raise ValueError(f"the reference of {name} has no bins: edges must rise, one fewer than shares")
    if not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"the reference of {name} has shares that do not add up to 1")
    return SeriesReference(edges, shares, tuple(sorted(variation)))
