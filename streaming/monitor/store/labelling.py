"""Keeps the labels: the one of greatest precedence holds, whatever the order in which they come."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from streaming.monitor.store.cells import ORIGINS, Verdict
from streaming.monitor.store.identities import chunks

WITHDRAWN, GENUINE, FRAUD = range(3)
CONTROL = ORIGINS.index("control")
COLUMNS = "identity, labelled_at_ms, origin, verdict, control, arrived_ms, matched"

Change = tuple[int, Verdict | None, Verdict | None]
"""Identity, and the verdict that held and that holds now."""


class Given(NamedTuple):
    """A label as it came.

    Attributes
    ----------
    labelled_at_ms : int
        When it was given, milliseconds since 1970.
    origin : int
        Index in `ORIGINS`, which ascend in precedence.
    verdict : int
        `WITHDRAWN`, `GENUINE` or `FRAUD`, which ascend in precedence.
    """

    identity: int
    labelled_at_ms: int
    origin: int
    verdict: int
    arrived_ms: int

    @property
    def precedence(self) -> tuple[int, int, int]:
        """The greatest holds: newest, then origin, then verdict."""
        return self.labelled_at_ms, self.origin, self.verdict


class _Held(NamedTuple):
    identity: int
    labelled_at_ms: int
    origin: int
    verdict: int
    control: int
    arrived_ms: int
    matched: int

    @property
    def holds(self) -> Verdict | None:
        if self.verdict == WITHDRAWN:
            return None
        return Verdict(
            self.origin, self.control, int(self.verdict == FRAUD), self.labelled_at_ms, self.arrived_ms
        )


class Labels:
    """The table `labels`; every call happens within the caller's transaction.

    Parameters
    ----------
    connection : sqlite3.Connection
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def verdicts_of(self, identities: Sequence[int]) -> dict[int, Verdict]:
        """Return the labels that hold for transactions that have just been seen, and note that they were."""
        found: dict[int, Verdict] = {}
        matched = []
        for held in self._held(identities).values():
            if held.holds is not None:
                found[held.identity] = held.holds
            if not held.matched:
                matched.append((held.identity,))
        self._connection.executemany("UPDATE labels SET matched = 1 WHERE identity = ?", matched)
        return found

    def _held(self, identities: Sequence[int]) -> dict[int, _Held]:
        found: dict[int, _Held] = {}
        for chunk in chunks(identities):
            placeholders = ", ".join("?" * len(chunk))
            sql = f"SELECT {COLUMNS} FROM labels WHERE identity IN ({placeholders})"
            found.update((row[0], _Held(*row)) for row in self._connection.execute(sql, chunk))
        return found

    def give(self, labels: Sequence[Given], relabel: Callable[[Sequence[Change]], set[int]]) -> list[str]:
        """Take labels in, and count their transactions anew where they change something.

        Parameters
        ----------
        labels : sequence of Given
            In order of arrival.
        relabel : callable
            Takes the changes; returns the identities whose transactions are known.

        Returns
        -------
        list of str
            What became of each: ``"used"``, ``"duplicate"`` (the same label again), ``"superseded"`` (a newer
            one holds already).
        """
        held = self._held(list({one.identity for one in labels}))
        before = dict(held)
        fates = []
        for one in labels:
            fate, held[one.identity] = _decide(held.get(one.identity), one)
            fates.append(fate)
        changed = [now for identity, now in held.items() if before.get(identity) != now]
        known = relabel([(one.identity, _holds(before.get(one.identity)), one.holds) for one in changed])
        rows = (one._replace(matched=int(one.identity in known)) for one in changed)
        self._connection.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        return fates

    def waiting(self) -> int:
        """Return how many labels have no transaction yet."""
        return int(self._connection.execute("SELECT count(*) FROM labels WHERE matched = 0").fetchone()[0])

    def expire(self, before_ms: int, most: int) -> int:
        """Delete at most so many labels that came before a time; return how many never met a transaction."""
        rows = self._connection.execute(
            "SELECT identity, matched FROM labels WHERE arrived_ms < ? ORDER BY arrived_ms LIMIT ?",
            (before_ms, most),
        ).fetchall()
        self._connection.executemany(
            "DELETE FROM labels WHERE identity = ?", ((identity,) for identity, _ in rows)
        )
        return sum(not matched for _, matched in rows)


def _holds(held: _Held | None) -> Verdict | None:
    return held.holds if held is not None else None


def _decide(held: _Held | None, one: Given) -> tuple[str, _Held]:
    """Return what becomes of a label, and which then holds."""
    is_control = int(one.origin == CONTROL and one.verdict != WITHDRAWN)
    new = _Held(*one[:4], is_control, one.arrived_ms, 0)
    if held is None:
        return "used", new
    now = (held.labelled_at_ms, held.origin, held.verdict)
    if one.precedence == now:
        # The earlier arrival stays, whichever comes first: counts by arrival must not depend on repeats.
        return "duplicate", held
    # Once in the random control sample, always: a chargeback that follows must not leave it biased.
    control = max(held.control, is_control)
    if one.precedence < now:
        return "superseded", held._replace(control=control)
    return "used", new._replace(control=control, matched=held.matched)
