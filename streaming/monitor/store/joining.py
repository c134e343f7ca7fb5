"""Joins transactions, decisions and labels in the database, and tells the cells what became complete."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from streaming.monitor.observations import CHALLENGER, CHAMPION, PAIR, Payment, ReleaseDecision
from streaming.monitor.store.cells import DAY_MS, Cells, Judged, Verdict
from streaming.monitor.store.identities import Identities

# A source is one number: how often the topic was made again (8 bits), partition (14), offset (41).
EPOCH_BITS, PARTITION_BITS, OFFSET_BITS = 8, 14, 41
# Rows further apart are asked for on their own.
WIDEST_GAP = 256

# at_ms, amount, identity, champion, challenger; the last two hold 4 * release + decision.
AT, AMOUNT, IDENTITY = range(3)
Row = list[int | float | None]


def number_source(epoch: int, partition: int, offset: int) -> int:
    """Return the number under which a transaction is kept.

    Examples
    --------
    >>> number_source(0, 0, 7), number_source(0, 1, 0) == 2**41
    (7, True)
    >>> number_source(255, 2**14 - 1, 2**41 - 1) < 2**63  # what SQLite takes for a key
    True
    """
    return ((epoch << PARTITION_BITS | partition) << OFFSET_BITS) | offset


class Releases:
    """Numbers releases, so that a row takes a byte for each."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._numbers: dict[str, int] = {}
        self._pairs: dict[tuple[int, int], int] = {}

    def number(self, name: str) -> int:
        """Return the number of a release, or of a pair written ``champion/challenger``."""
        if (number := self._numbers.get(name)) is None:
            execute = self._connection.execute
            execute("INSERT INTO releases (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
            number = execute("SELECT id FROM releases WHERE name = ?", (name,)).fetchone()[0]
            self._numbers[name] = number
        return number

    def name(self, number: int) -> str:
        """Return the release with a number."""
        found = self._connection.execute("SELECT name FROM releases WHERE id = ?", (number,)).fetchone()
        return str(found[0])

    def pair(self, champion: int, challenger: int) -> int:
        """Return the number of two releases together."""
        if (number := self._pairs.get((champion, challenger))) is None:
            number = self.number(f"{self.name(champion)}/{self.name(challenger)}")
            self._pairs[champion, challenger] = number
        return number


class Joiner:
    """Keeps `outcomes`; every call happens within the caller's transaction.

    Parameters
    ----------
    connection : sqlite3.Connection
    cells : Cells
    verdicts_of : callable
        Returns the labels that hold for identities, and notes that their transaction is known.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        cells: Cells,
        verdicts_of: Callable[[Sequence[int]], dict[int, Verdict]],
    ) -> None:
        self._connection = connection
        self._cells = cells
        self._verdicts_of = verdicts_of
        self.releases = Releases(connection)
        self.identities = Identities(connection)

    def join(
        self, payments: Sequence[Payment], decisions: Sequence[ReleaseDecision], epoch: int
    ) -> list[str]:
        """Take a batch in, transactions first.

        Returns
        -------
        list of str
            What became of each decision: ``"used"``, ``"duplicate"`` (one is there already), ``"foreign"``
            (on another transaction at the same place, from before the topic was made again).
        """
        paid = [number_source(epoch, one.partition, one.offset) for one in payments]
        ruled = [number_source(epoch, one.partition, one.offset) for one in decisions]
        rows = self._load(paid) | self._load(ruled)
        before = {source: tuple(row) for source, row in rows.items()}
        known = self._add_payments(dict(zip(paid, payments, strict=True)), rows)
        fates = [
            self._add_decision(rows, source, made) for source, made in zip(ruled, decisions, strict=True)
        ]
        changed = [source for source, row in rows.items() if before.get(source) != tuple(row)]
        self.identities.add(known)
        self._count(changed, rows, before)
        statement = "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)"
        self._connection.executemany(statement, ((source, *rows[source]) for source in sorted(changed)))
        return fates

    def _load(self, sources: Sequence[int]) -> dict[int, Row]:
        rows: dict[int, Row] = {}
        for first, last in _runs(sources):
            found = self._connection.execute(
                "SELECT * FROM outcomes WHERE source BETWEEN ? AND ?", (first, last)
            )
            rows.update((source, row) for source, *row in found)
        return rows

    @staticmethod
    def _add_payments(payments: dict[int, Payment], rows: dict[int, Row]) -> list[tuple[int, int, int]]:
        """Fill in the transactions; return day, identity and source of those that are new."""
        known = []
        for source, one in payments.items():
            row = rows.get(source)
            if row is not None and row[AT] is not None:
                continue
            if row is None or _differ(row[IDENTITY], one.identity):
                row = [None, None, None, None, None]
            rows[source] = [one.at_ms, one.amount, one.identity, *row[3:]]
            if one.identity is not None:
                known.append((one.at_ms // DAY_MS, one.identity, source))
        return known

    def _add_decision(self, rows: dict[int, Row], source: int, made: ReleaseDecision) -> str:
        row = rows.get(source)
        if row is None:
            row = rows[source] = [None, None, made.identity, None, None]
        if _differ(row[IDENTITY], made.identity):
            return "foreign"
        column = 3 + made.role
        if row[column] is not None:
            return "duplicate"
        row[column] = 4 * self.releases.number(made.release) + made.decision
        return "used"

    def _count(
        self, changed: Iterable[int], rows: dict[int, Row], before: dict[int, tuple[int | float | None, ...]]
    ) -> None:
        fresh: list[tuple[int | None, list[Judged]]] = []
        for source in changed:
            row = rows[source]
            if row[AT] is None:
                continue
            old = before.get(source)
            counted = {one.role for one in self.judge(old)} if old is not None else set()
            new = [one for one in self.judge(row) if one.role not in counted]
            fresh.append((row[IDENTITY], new))  # type: ignore[arg-type]  # an identity is whole
        verdicts = self._verdicts_of([identity for identity, _ in fresh if identity is not None])
        for identity, judged in fresh:
            verdict = verdicts.get(identity) if identity is not None else None
            for one in judged:
                self._cells.add_decided(one)
                if verdict is not None:
                    self._cells.add_labelled(one, verdict)

    def judge(self, row: Sequence[int | float | None]) -> list[Judged]:
        """Return what a row counts as: champion, challenger, both; nothing without its transaction."""
        at_ms, amount, _, champion, challenger = row
        if at_ms is None or amount is None:
            return []
        found = []
        for role, code in ((CHAMPION, champion), (CHALLENGER, challenger)):
            if code is not None:
                found.append(Judged(role, int(code) // 4, int(code) % 4, int(at_ms), amount))
        if len(found) == PAIR:
            first, second = found
            pair = self.releases.pair(first.release, second.release)
            found.append(Judged(PAIR, pair, 4 * first.decision + second.decision, int(at_ms), amount))
        return found

    def relabel(self, changes: Sequence[tuple[int, Verdict | None, Verdict | None]]) -> set[int]:
        """Count transactions under another label than before.

        Parameters
        ----------
        changes : sequence of (int, Verdict or None, Verdict or None)
            Identity, and the verdict that held and that holds now.

        Returns
        -------
        set of int
            The identities that have a transaction.
        """
        sources = self.identities.find([identity for identity, *_ in changes])
        rows = self._load([source for found in sources.values() for source in found])
        for identity, old, new in changes:
            for source in sources.get(identity, ()):
                for one in self.judge(rows[source]) if source in rows else ():
                    if old is not None:
                        self._cells.add_labelled(one, old, -1)
                    if new is not None:
                        self._cells.add_labelled(one, new)
        return set(sources)


def _differ(one: int | float | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def _runs(sources: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of runs without wide gaps."""
    if not sources:
        return
    ordered = sorted(sources)
    first = last = ordered[0]
    for source in ordered[1:]:
        if source - last > WIDEST_GAP:
            yield first, last
            first = source
        last = source
    yield first, last
