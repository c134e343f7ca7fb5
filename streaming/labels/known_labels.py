"""Brings labels and decisions together on disk, and weighs what is known for what is not.

A decided transaction is *known* when the label that counts says fraud or genuine, or when it was approved,
has no label, and is older than the label delay: its chargeback would have come. One that was declined or
reviewed never has a chargeback, so without a label it stays unknown, however old.

Known transactions stand for themselves. The random control sample also stands for the unknown ones, so that
the weighted rows are the stream again (Dal Pozzolo et al., 2018, on why alarms alone are biased; weights as
in stratified sampling, Cochran, 1977): with u unknown and c control transactions in a stratum, each control
transaction weighs ``(u + c) / c``. A stratum is a release and what it did (strata.py). Once in the control
sample a transaction stays there, whatever newer label wins.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from streaming.labels.records import ORIGINS, Label
from streaming.labels.strata import APPROVED

_TABLES = """
CREATE TABLE label (
    id TEXT PRIMARY KEY, at_ms INTEGER, rank INTEGER, verdict INTEGER, is_fraud INTEGER, is_control INTEGER
) WITHOUT ROWID;
CREATE TABLE decision (
    partition INTEGER, offset INTEGER, id TEXT, release TEXT, stratum INTEGER, at_ms INTEGER,
    PRIMARY KEY (partition, offset)
) WITHOUT ROWID;
"""
_NEWER = "(excluded.at_ms, excluded.rank, excluded.verdict) > (label.at_ms, label.rank, label.verdict)"
_ADD_LABEL = f"""
INSERT INTO label VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
    is_control = max(is_control, excluded.is_control),
    at_ms = iif({_NEWER}, excluded.at_ms, at_ms),
    rank = iif({_NEWER}, excluded.rank, rank),
    verdict = iif({_NEWER}, excluded.verdict, verdict),
    is_fraud = iif({_NEWER}, excluded.is_fraud, is_fraud)
"""  # noqa: S608  # our own text
# A label that withdraws has no is_fraud: the transaction is as one without a label.
_KNOWN = f"""
SELECT d.partition, d.offset, d.release, d.stratum,
    CASE WHEN l.is_fraud IS NOT NULL THEN l.is_fraud
         WHEN d.stratum = {APPROVED} AND d.at_ms <= :mature_before_ms THEN 0 END AS is_fraud,
    l.is_fraud IS NOT NULL AND l.is_control AS is_control,
    CASE WHEN l.is_fraud IS NOT NULL THEN l.rank END AS rank
FROM decision d LEFT JOIN label l ON l.id = d.id
"""  # noqa: S608  # our own number


class Decided(NamedTuple):
    """What the export needs of a decision record."""

    partition: int
    offset: int
    transaction_id: str | None
    release: str
    stratum: int
    decided_at_ms: int


class Known(NamedTuple):
    """What is known of a transaction: its class, the rows it stands for, and where the label came from."""

    is_fraud: bool
    weight: float
    origin: str


@dataclass(frozen=True)
class Stratum:
    """Transactions that one release decided alike; `stratum` is an index in `STRATA`."""

    release: str
    stratum: int
    decided: int
    known: int
    control: int

    @property
    def unknown(self) -> int:
        """Transactions without a label that counts."""
        return self.decided - self.known

    @property
    def control_weight(self) -> float:
        """How many transactions one of the control sample stands for, itself included."""
        return (self.unknown + self.control) / self.control if self.control else 1.0


class KnownLabels:
    """Labels and decisions in a database that is thrown away: memory stays flat whatever their number.

    Parameters
    ----------
    path : pathlib.Path
        File of the database; must not exist.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        # Nothing is kept when the process ends, so nothing need be safe on disk.
        self._database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
        self._weights: dict[tuple[str, int], float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add_labels(self, labels: Iterable[Label]) -> None:
        """Take labels in, in any order; of several for a transaction the greatest `precedence` counts."""
        rows = (
            (one.transaction_id, *one.precedence, one.is_fraud, one.origin == "control") for one in labels
        )
        self._database.executemany(_ADD_LABEL, rows)

    def add_decisions(self, decisions: Iterable[Decided]) -> None:
        """Take decisions in; of several for a transaction the last one counts."""
        self._database.executemany("INSERT OR REPLACE INTO decision VALUES (?, ?, ?, ?, ?, ?)", decisions)

    def weigh(self, mature_before_ms: int) -> list[Stratum]:
        """Close the books: return the strata, and let `find` answer.

        Parameters
        ----------
        mature_before_ms : int
            What was approved until then, milliseconds since 1970, is genuine where nothing else is known.
        """
        parameters = {"mature_before_ms": mature_before_ms}
        self._database.execute(f"CREATE TABLE known AS {_KNOWN}", parameters)
        self._database.execute("CREATE UNIQUE INDEX known_place ON known (partition, offset)")
        counted = self._database.execute(
            "SELECT release, stratum, count(*), count(is_fraud), sum(is_control) FROM known "
            "GROUP BY release, stratum ORDER BY release, stratum"
        )
        strata = [Stratum(*row) for row in counted]
        self._weights = {(one.release, one.stratum): one.control_weight for one in strata}
        return strata

    def find(self, partition: int, offset: int) -> Known | None:
        """Return what is known of a transaction; None for one that is not decided, or of unknown class."""
        found = self._database.execute(
            "SELECT release, stratum, is_fraud, is_control, rank FROM known "
            "WHERE partition = ? AND offset = ?",
            (partition, offset),
        ).fetchone()
        if found is None or found[2] is None:
            return None
        release, stratum, is_fraud, is_control, rank = found
        weight = self._weights[release, stratum] if is_control else 1.0
        return Known(bool(is_fraud), weight, "none" if rank is None else ORIGINS[rank])
