"""The monitor's access pattern on three embedded stores.

A batch: 5,000 rows by source, 5,000 entries by hashed id, 5,000 rows read and written again as their
decisions come, 20 labels that look up an id and its row, the offsets; all in one transaction. SQLite twice:
with one table of ids, and with a table a "day" of half a million, as the monitor has it.
"""

import hashlib
import importlib.util
import random
import shutil
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

BATCH = 5000
LOOK_UPS = 20
DAY_ROWS = 500_000
ROW = struct.Struct("<qdqbbbb")
Batch = Callable[[int], None]


def measure_stores(folder: Path, rows: int, console: Console) -> None:
    """Measure each store that is installed, and print a table."""
    table = Table(title=f"{rows:,} transactions, {LOOK_UPS} labels in {BATCH:,}")
    for heading in ("store", "transactions/s, first fifth", "last fifth", "processor, µs each", "bytes each"):
        table.add_column(heading, justify="right")
    for name, package, make in (
        ("SQLite, one table of ids", "sqlite3", lambda at: sqlite(at, days=False)),
        ("SQLite, a table a day", "sqlite3", lambda at: sqlite(at, days=True)),
        ("LMDB", "lmdb", lmdb),
        ("RocksDB", "rocksdict", rocksdb),
    ):
        if importlib.util.find_spec(package) is None:
            table.add_row(name, f"{package} is not installed", "", "", "")
            continue
        at = folder / f"store-{name.split()[0]}-{len(name)}"
        at.mkdir()
        table.add_row(name, *measure(make(at), rows, at))
        shutil.rmtree(at)
    console.print(table)


def measure(batch: Batch, rows: int, folder: Path) -> Iterator[str]:
    """Return the cells of a table row."""
    batches = rows // BATCH
    rates, spent = [], time.process_time()
    for fifth in range(5):
        begun = time.monotonic()
        for number in range(fifth * batches // 5, (fifth + 1) * batches // 5):
            batch(number)
        rates.append(rows / 5 / (time.monotonic() - begun))
    spent = time.process_time() - spent
    size = sum(file.stat().st_size for file in folder.iterdir())
    return iter((f"{rates[0]:,.0f}", f"{rates[-1]:,.0f}", f"{spent / rows * 1e6:.1f}", f"{size / rows:.0f}"))


def identity(number: int) -> int:
    """Return the hashed id of a transaction."""
    return int.from_bytes(hashlib.blake2b(b"T-%d" % number, digest_size=8).digest(), "big", signed=True)


def parts(number: int) -> tuple[list[int], list[int], list[int]]:
    """Return numbers, hashed ids and sources of a batch."""
    numbers = list(range(number * BATCH, (number + 1) * BATCH))
    return numbers, [identity(n) for n in numbers], [(n % 4) << 41 | n // 4 for n in numbers]


def sqlite(folder: Path, *, days: bool) -> Batch:
    """Return what takes a batch into SQLite, with the monitor's settings."""
    db = sqlite3.connect(folder / "store.sqlite", isolation_level=None)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "cache_size = -65536",
        "wal_autocheckpoint = 16384",
    ):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE rows (source INTEGER PRIMARY KEY, at INT, amount REAL, id INT, a INT, b INT)")
    db.execute("CREATE TABLE offsets (stream TEXT PRIMARY KEY, next INT)")
    rng, tables = random.Random(1), []

    def table_of(number: int) -> str:
        name = f"ids_{number * BATCH // DAY_ROWS if days else 0}"
        if name not in tables:
            db.execute(f"CREATE TABLE {name} (id INT, source INT, PRIMARY KEY (id, source)) WITHOUT ROWID")
            tables.append(name)
        return name

    def take(number: int) -> None:
        numbers, ids, sources = parts(number)
        db.execute("BEGIN IMMEDIATE")
        rows = list(zip(sources, numbers, [12.5] * BATCH, ids, strict=True))
        db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, NULL, NULL)", rows)
        db.executemany(
            f"INSERT INTO {table_of(number)} VALUES (?, ?)", sorted(zip(ids, sources, strict=True))
        )
        for first in sources[:4]:
            db.execute(
                "SELECT * FROM rows WHERE source BETWEEN ? AND ?", (first, first + BATCH // 4)
            ).fetchall()
        db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, 1, NULL)", rows)
        for _ in range(LOOK_UPS):
            wanted = (identity(rng.randrange((number + 1) * BATCH)),)
            found = [db.execute(f"SELECT source FROM {t} WHERE id = ?", wanted).fetchall() for t in tables]
            db.execute("SELECT * FROM rows WHERE source = ?", next(one[0] for one in found if one)).fetchone()
        db.execute("INSERT OR REPLACE INTO offsets VALUES ('t', ?)", (number,))
        db.execute("COMMIT")

    return take


def lmdb(folder: Path) -> Batch:
    """Return what takes a batch into LMDB."""
    import lmdb as library

    db = library.open(str(folder), map_size=1 << 36, max_dbs=2, metasync=False)
    rows, ids = db.open_db(b"rows"), db.open_db(b"ids")
    source_key, id_key, rng = struct.Struct(">Q").pack, struct.Struct(">qQ"), random.Random(1)

    def take(number: int) -> None:
        numbers, hashed, sources = parts(number)
        keys = [source_key(source) for source in sources]
        with db.begin(write=True) as transaction:
            values = [ROW.pack(n, 12.5, one, 0, 0, 0, 0) for n, one in zip(numbers, hashed, strict=True)]
            transaction.cursor(rows).putmulti(list(zip(keys, values, strict=True)))
            entries = sorted(zip(hashed, sources, strict=True))
            looking = transaction.cursor(ids)
            looking.putmulti([(id_key.pack(*entry), b"") for entry in entries])
            again = [ROW.unpack(transaction.get(key, db=rows)) for key in keys]
            decided = [ROW.pack(*row[:3], 1, 0, 0, 0) for row in again]
            transaction.cursor(rows).putmulti(list(zip(keys, decided, strict=True)))
            for _ in range(LOOK_UPS):
                looking.set_range(id_key.pack(identity(rng.randrange((number + 1) * BATCH)), 0))
                transaction.get(source_key(id_key.unpack(looking.key())[1]), db=rows)
            transaction.put(b"offsets", source_key(number))

    return take


def rocksdb(folder: Path) -> Batch:
    """Return what takes a batch into RocksDB: two atomic writes, since reads do not see an open one."""
    from rocksdict import Options, Rdict, WriteBatch

    options = Options(raw_mode=True)
    options.create_if_missing(True)
    db = Rdict(str(folder), options)
    source_key, id_key, rng = struct.Struct(">cQ").pack, struct.Struct(">cqQ"), random.Random(1)

    def take(number: int) -> None:
        numbers, hashed, sources = parts(number)
        keys = [source_key(b"r", source) for source in sources]
        write = WriteBatch(raw_mode=True)
        for key, n, one, source in zip(keys, numbers, hashed, sources, strict=True):
            write.put(key, ROW.pack(n, 12.5, one, 0, 0, 0, 0))
            write.put(id_key.pack(b"i", one, source), b"")
        db.write(write)
        write = WriteBatch(raw_mode=True)
        for key, value in zip(keys, db.get(keys), strict=True):
            write.put(key, ROW.pack(*ROW.unpack(value)[:3], 1, 0, 0, 0))
        for _ in range(LOOK_UPS):
            found = db.iter()
            found.seek(id_key.pack(b"i", identity(rng.randrange((number + 1) * BATCH)), 0))
            db.get(source_key(b"r", id_key.unpack(found.key())[2]))
        write.put(b"offsets", struct.pack(">Q", number))
        db.write(write)

    return take
