"""Counts in cells: every figure is a sum over cells, and every record adds to a few of them."""

import bisect
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

# Levels: slices of `bucket_s`, days, the whole of a release, and slices by when the label came.
FINE, DAY, TOTAL, ARRIVAL = range(4)
DAY_MS = 86_400_000
FINE_KEPT_MS = 8 * DAY_MS

ORIGINS = ("chargeback", "investigation", "control")
# Upper bounds of label delays, seconds; the last cell is open.
DELAYS_S = (
    *(0, 60, 300, 900, 3600, 4 * 3600, 12 * 3600),
    *(days * 86_400 for days in (1, 2, 4, 7, 14, 21, 30, 45, 60, 90)),
)

DECIDED_SQL = (
    "INSERT INTO decided VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "count = count + excluded.count, amount = amount + excluded.amount"
)
LABELLED_SQL = (
    "INSERT INTO labelled VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "count = count + excluded.count, amount = amount + excluded.amount, square = square + excluded.square"
)


class Verdict(NamedTuple):
    """The label that holds for a transaction.

    Attributes
    ----------
    origin : int
        Index in `ORIGINS`.
    control : int
        1 where the transaction belongs to the random control sample, whatever newer label holds.
    fraud : int
    labelled_at_ms, arrived_ms : int
        When the label was given, and when it came to the topic.
    """

    origin: int
    control: int
    fraud: int
    labelled_at_ms: int
    arrived_ms: int


class Judged(NamedTuple):
    """A decided transaction, as the cells count it.

    Attributes
    ----------
    role : int
        Champion, challenger or both.
    release : int
        Number of the release, or of the two releases, in the table `releases`.
    decision : int
        As `ReleaseDecision` has it; for both roles ``4 * champion's + challenger's``.
    """

    role: int
    release: int
    decision: int
    at_ms: int
    amount: float


class Cells:
    """Gathers what a batch adds to the cells, then adds it to the tables.

    Parameters
    ----------
    bucket_s : int
        Width of a fine slice, seconds.
    bounds : sequence of float
        Of the amount bands, ascending.
    """

    def __init__(self, bucket_s: int, bounds: Sequence[float]) -> None:
        self._bucket_ms = bucket_s * 1000
        self._bounds = list(bounds)
        self._decided: defaultdict[tuple[int, ...], list[float]] = defaultdict(lambda: [0, 0.0])
        self._labelled: defaultdict[tuple[int, ...], list[float]] = defaultdict(lambda: [0, 0.0, 0.0])

    def add_decided(self, one: Judged) -> None:
        """Count a decision."""
        start = one.at_ms - one.at_ms % self._bucket_ms
        band = bisect.bisect_left(self._bounds, one.amount)
        cell = self._decided[one.role, one.release, start, one.decision, band]
        cell[0] += 1
        cell[1] += one.amount

    def add_labelled(self, one: Judged, verdict: Verdict, sign: int = 1) -> None:
        """Count a labelled decision, or with -1 take it back."""
        band = bisect.bisect_left(self._bounds, one.amount)
        delay = bisect.bisect_left(DELAYS_S, (verdict.labelled_at_ms - one.at_ms) / 1000)
        rest = (one.decision, band, verdict.origin, verdict.control, verdict.fraud, delay)
        fine = one.at_ms - one.at_ms % self._bucket_ms
        arrival = verdict.arrived_ms - verdict.arrived_ms % self._bucket_ms
        day = one.at_ms - one.at_ms % DAY_MS
        for level, start in ((FINE, fine), (DAY, day), (TOTAL, 0), (ARRIVAL, arrival)):
            cell = self._labelled[(level, one.role, one.release, start, *rest)]
            cell[0] += sign
            cell[1] += sign * one.amount
            cell[2] += sign * one.amount**2

    def write(self, connection: sqlite3.Connection) -> None:
        """Add to the tables what has been gathered, within the caller's transaction, and begin anew."""
        decided: defaultdict[tuple[int, ...], list[float]] = defaultdict(lambda: [0, 0.0])
        for (role, release, start, *rest), (count, amount) in self._decided.items():
            for level, begin in ((FINE, start), (DAY, start - start % DAY_MS), (TOTAL, 0)):
                cell = decided[(level, role, release, begin, *rest)]
                cell[0] += count
                cell[1] += amount
        connection.executemany(DECIDED_SQL, ((*key, *cell) for key, cell in decided.items()))
        connection.executemany(LABELLED_SQL, ((*key, *cell) for key, cell in self._labelled.items()))
        self._decided.clear()
        self._labelled.clear()


def drop_old_cells(connection: sqlite3.Connection, now_ms: int, label_delay_ms: int) -> None:
    """Delete slices that no window reaches any more; the sums since the release stay."""
    for table in ("decided", "labelled"):
        releases = connection.execute(f"SELECT DISTINCT role, release FROM {table} WHERE level = ?", (TOTAL,))
        for role, release in releases.fetchall():
            for level, kept_ms in ((FINE, FINE_KEPT_MS), (DAY, label_delay_ms), (ARRIVAL, FINE_KEPT_MS)):
                connection.execute(
                    f"DELETE FROM {table} WHERE level = ? AND role = ? AND release = ? AND start < ?",
                    (level, role, release, now_ms - kept_ms - DAY_MS),
                )
