"""The monitor's database: one SQLite file in a folder that one process owns.

SQLite, as measured in ``benchmarks/monitor.py`` against LMDB and RocksDB: fast enough for the stream, in the
standard library, its WAL lets the page read while the loop writes, and any tool opens it.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streaming.errors import SettingsError, StateError

SCHEMA_VERSION = 1
CACHE_KIB = 65_536
# A page that many transactions change is written to the file once; 4 KiB each.
CHECKPOINT_PAGES = 16_384

# `outcomes` has a row for each transaction: when, how much, whose, and what each role decided. Tables
# `identities_DAY` (identities.py) lead from a hashed transaction_id to it. `decided` and `labelled` are
# counts in cells (cells.py).
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (
    stream TEXT, partition INTEGER, topic_id TEXT NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (stream, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (
    name TEXT, stream TEXT, outcome TEXT, count INTEGER NOT NULL, PRIMARY KEY (name, stream, outcome)
    ) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS releases (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS documents (
    role INTEGER, release TEXT, document TEXT NOT NULL, PRIMARY KEY (role, release)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    source INTEGER PRIMARY KEY, at_ms INTEGER, amount REAL, identity INTEGER, champion INTEGER,
    challenger INTEGER);
CREATE TABLE IF NOT EXISTS labels (
    identity INTEGER PRIMARY KEY, labelled_at_ms INTEGER NOT NULL, origin INTEGER NOT NULL,
    verdict INTEGER NOT NULL, control INTEGER NOT NULL, arrived_ms INTEGER NOT NULL,
    matched INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS labels_by_arrival ON labels (arrived_ms);
CREATE INDEX IF NOT EXISTS labels_waiting ON labels (identity) WHERE matched = 0;
CREATE TABLE IF NOT EXISTS decided (
    level INTEGER, role INTEGER, release INTEGER, start INTEGER, decision INTEGER, band INTEGER,
    count INTEGER NOT NULL, amount REAL NOT NULL,
    PRIMARY KEY (level, role, release, start, decision, band)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labelled (
    level INTEGER, role INTEGER, release INTEGER, start INTEGER, decision INTEGER, band INTEGER,
    origin INTEGER, control INTEGER, fraud INTEGER, delay INTEGER,
    count INTEGER NOT NULL, amount REAL NOT NULL, square REAL NOT NULL,
    PRIMARY KEY (level, role, release, start, decision, band, origin, control, fraud, delay)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS drift (
    role INTEGER PRIMARY KEY, release TEXT NOT NULL, state TEXT NOT NULL, findings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS alarms (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, role INTEGER NOT NULL, release TEXT NOT NULL,
    series TEXT NOT NULL, since_ms INTEGER NOT NULL, until_ms INTEGER, sentence TEXT NOT NULL);
"""


class Database:
    """The open file; one process at a time.

    Parameters
    ----------
    folder : Path
        Made when missing.

    Raises
    ------
    SettingsError
        If the folder cannot be used, belongs to another process, or to another version of the monitor.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "monitor.sqlite"
        self._lock = _claim(folder)
        try:
            self.connection = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False)
            self._prepare()
        except sqlite3.DatabaseError as error:
            os.close(self._lock)
            raise SettingsError(
                f"{self.file} cannot be opened ({error}): move it away to begin anew."
            ) from error

    def _prepare(self) -> None:
        execute = self.connection.execute
        execute("PRAGMA journal_mode = WAL")
        # A power failure may take the last transactions, offsets included: they are read again.
        execute("PRAGMA synchronous = NORMAL")
        execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        with self.transaction():
            for statement in SCHEMA.split(";\n"):
                execute(statement)
        found = self.remember("schema", str(SCHEMA_VERSION))
        if found != str(SCHEMA_VERSION):
            raise SettingsError(
                f"{self.file} was made by another version of the monitor (schema {found}): move it away, and "
                "the monitor counts anew from the topics."
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block writes, all or none.

        Raises
        ------
        StateError
            If the disk is full or fails.
        """
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield
            self.connection.execute("COMMIT")
        except BaseException as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StateError(f"The database {self.file} fails: {error}.") from error
            raise

    def remember(self, key: str, value: str) -> str:
        """Return what is noted under a key; `value` is noted where nothing is."""
        execute = self.connection.execute
        execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO NOTHING", (key, value))
        return str(execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def count(self, name: str, stream: str, outcome: str, by: int = 1) -> None:
        """Add to a counter."""
        self.connection.execute(
            "INSERT INTO counters VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET count = count + excluded.count",
            (name, stream, outcome, by),
        )

    @property
    def size(self) -> int:
        """Bytes on disk."""
        files = self.file.parent.glob(self.file.name + "*")
        return sum(file.stat().st_size for file in files)

    def close(self) -> None:
        """Give the file up."""
        self.connection.close()
        os.close(self._lock)


def _claim(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsError(
            f"The folder {folder} cannot be written to ({error.strerror}): --state"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise SettingsError(f"Another monitor works in {folder}: give each its own --state.") from error
    return lock
