"""A release's figures over time, for the charts."""

import sqlite3
from collections import defaultdict
from typing import Any, Protocol

from streaming.monitor.quality.figures import ALARMS, Judgement
from streaming.monitor.quality.intervals import share
from streaming.monitor.store.cells import DAY, DAY_MS, FINE, FINE_KEPT_MS

# Enough to see a change, few enough that a point has labels to rest on.
MOST_POINTS = 72


class Span(Protocol):
    """What the points are of."""

    @property
    def role(self) -> int:
        """Champion or challenger."""

    @property
    def number(self) -> int:
        """The release's number."""

    @property
    def since_ms(self) -> int:
        """When it began."""


def points(connection: sqlite3.Connection, span: Span, as_of_ms: int, how: Judgement) -> list[dict[str, Any]]:
    """Return at most `MOST_POINTS` points, each of equally long slices, oldest first.

    A release of up to eight days is shown in fine slices, an older one in days.
    """
    first = _first(connection, span, DAY)
    if first is None:
        return []
    level = FINE if as_of_ms - first <= FINE_KEPT_MS else DAY
    begin = _first(connection, span, level) or first
    width = _width(connection, span, level, as_of_ms - begin)
    decided = _grouped(connection, span, level, width, "decided", "count")
    labelled = _grouped(connection, span, level, width, "labelled", "count")
    return [_point(start, width, decided[start], labelled.get(start, {}), how.z) for start in sorted(decided)]


def _first(connection: sqlite3.Connection, span: Span, level: int) -> int | None:
    sql = "SELECT min(start) FROM decided WHERE level = ? AND role = ? AND release = ?"
    found = connection.execute(sql, (level, span.role, span.number)).fetchone()[0]
    return None if found is None else int(found)


def _width(connection: sqlite3.Connection, span: Span, level: int, length_ms: int) -> int:
    """Return how long a point is: a multiple of the level's slices."""
    if level == DAY:
        return DAY_MS * (1 + length_ms // DAY_MS // MOST_POINTS)
    sql = "SELECT value FROM meta WHERE key = 'bucket_ms'"
    slice_ms = int(connection.execute(sql).fetchone()[0])
    return slice_ms * (1 + length_ms // slice_ms // MOST_POINTS)


Cells = dict[tuple[int, int], int]
"""Decision and whether fraud (-1: not labelled) to a count."""


def _grouped(
    connection: sqlite3.Connection, span: Span, level: int, width: int, table: str, value: str
) -> dict[int, Cells]:
    fraud = "fraud" if table == "labelled" else "-1"
    found: defaultdict[int, Cells] = defaultdict(dict)
    for start, decision, kind, count in connection.execute(
        f"SELECT start / ? * ?, decision, {fraud}, sum({value}) FROM {table} "
        "WHERE level = ? AND role = ? AND release = ? GROUP BY 1, 2, 3",
        (width, width, level, span.role, span.number),
    ):
        found[start][decision, kind] = count
    return found


def _point(start: int, width: int, decided: Cells, labelled: Cells, z: float) -> dict[str, Any]:
    total = sum(decided.values())
    alarms = sum(count for (decision, _), count in decided.items() if decision in ALARMS)
    frauds = sum(count for (_, fraud), count in labelled.items() if fraud)
    caught = sum(count for (decision, fraud), count in labelled.items() if fraud and decision in ALARMS)
    judged = sum(count for (decision, _), count in labelled.items() if decision in ALARMS)
    return {
        "from_ms": start,
        "to_ms": start + width,
        "decisions": total,
        "alarm_rate": share(alarms, total, z)._asdict(),
        "recall": share(caught, frauds, z)._asdict(),
        "precision": share(caught, judged, z)._asdict(),
    }
