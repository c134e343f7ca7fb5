"""Leads from a hashed transaction_id to its transactions: a table for each day."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence

PREFIX = "identities_"
# SQLite takes at least 999 parameters in a statement.
IN_CHUNK = 900


class Identities:
    """The tables ``identities_DAY``, DAY counted from 1970.

    One table for all days would be written at random places all over; at 1,000 a second it outgrows any
    memory within days, and each entry then costs a read from the disk. Of these, only the newest is written.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._days: set[int] | None = None

    def add(self, entries: Sequence[tuple[int, int, int]]) -> None:
        """Add day, identity and source of transactions."""
        by_day: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for day, identity, source in entries:
            by_day[day].append((identity, source))
        for day, rows in by_day.items():
            if day not in self.days():
                self._connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {PREFIX}{day} (identity INTEGER, source INTEGER, "
                    "PRIMARY KEY (identity, source)) WITHOUT ROWID"
                )
                self.days().add(day)
            rows.sort()  # neighbours share a page
            self._connection.executemany(f"INSERT OR IGNORE INTO {PREFIX}{day} VALUES (?, ?)", rows)

    def days(self) -> set[int]:
        """Return the days that have a table."""
        if self._days is None:
            names = self._connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'identities@_%' ESCAPE '@'"
            )
            self._days = {int(name.removeprefix(PREFIX)) for (name,) in names.fetchall()}
        return self._days

    def find(self, identities: Sequence[int]) -> dict[int, list[int]]:
        """Return the sources of identities; several where a transaction was sent again."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        for chunk in chunks(identities):
            placeholders = ", ".join("?" * len(chunk))
            for day in sorted(self.days(), reverse=True):
                sql = f"SELECT identity, source FROM {PREFIX}{day} WHERE identity IN ({placeholders})"
                for identity, source in self._connection.execute(sql, chunk):
                    found[identity].append(source)
        return found

    def shrink(self, before_day: int, most: int) -> None:
        """Delete at most `most` entries of days before `before_day`; a table goes when it is empty.

        Dropping a table of millions of rows at once would hold the stream up for minutes.
        """
        for day in sorted(day for day in self.days() if day < before_day):
            name = f"{PREFIX}{day}"
            bound = self._connection.execute(
                f"SELECT identity FROM {name} ORDER BY identity LIMIT 1 OFFSET ?",
                (most,),
            ).fetchone()
            if bound is not None:
                self._connection.execute(f"DELETE FROM {name} WHERE identity < ?", bound)
                return
            self._connection.execute(f"DROP TABLE {name}")
            self.days().discard(day)


def chunks(values: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield parts that fit into one statement."""
    for start in range(0, len(values), IN_CHUNK):
        yield values[start : start + IN_CHUNK]
