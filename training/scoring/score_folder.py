"""The folder that partitions are scored into, and what it remembers so that none is scored twice.

::

    scores/
      date=2026-01-01/part-0-00000-3f2a9c….parquet   scores: the input's folders and names, a file a partition
      _refused/date=2026-01-01/part-0-00000-….parquet  rows that were not scored, with the reason
      _done/3f2a9c….json                             written last: this partition needs no scoring again
      _release.json                                  which release and limits the scores are of
      _SUCCESS                                       every file of the input is scored

Readers such as Spark and Arrow leave out names that start with ``_``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from training.errors import UsageError
from training.scoring.partitions import Partition
from training.scoring.row_checks import RefusedRow
from training.scoring.scorer import SCHEMA
from training.scoring.storage import Storage

REFUSED_SCHEMA = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), ("transaction_id", pa.string()), ("reason", pa.string())]
)
RELEASE, SUCCESS, DONE = "_release.json", "_SUCCESS", "_done"


@dataclass(frozen=True)
class DoneRecord:
    """What became of a partition."""

    output: str  # relative to the folder
    rows: int
    refused: int


@dataclass(frozen=True)
class ScoreFolder:
    """Scores of one release, a file for each partition."""

    storage: Storage
    release: str

    @property
    def suffix(self) -> str:
        """``.csv`` where the folder's own name ends so, else ``.parquet``."""
        return ".csv" if self.storage.path.lower().endswith(".csv") else ".parquet"

    def key(self, partition: Partition) -> str:
        """Return what the partition's record is named by."""
        return partition.key(self.release, self.suffix)

    def open(self) -> None:
        """Make the folder, or go on in one that holds scores of the same release.

        Raises
        ------
        UsageError
            If it holds anything else.
        """
        written = self.storage.read(RELEASE)
        if written is None and self.storage.files():
            raise UsageError(f"{self.storage.address}: is not empty and holds no scores: name another folder")
        if written is not None and json.loads(written)["release"] != self.release:
            raise UsageError(
                f"{self.storage.address}: holds scores of another release or other limits: "
                "name another folder, or delete it"
            )
        if written is None:
            self.storage.write(RELEASE, json.dumps({"release": self.release}).encode())
        self.storage.delete(SUCCESS)
        self.storage.delete_folder("_tmp")

    def done(self, partitions: Iterable[Partition]) -> dict[str, DoneRecord]:
        """Return the records of partitions that are scored already, by their keys.

        Scores of files that have changed or are gone are deleted.
        """
        files = self.storage.files()
        keys = {
            name.removeprefix(f"{DONE}/").removesuffix(".json") for name in files if name.startswith(DONE)
        }
        wanted = {self.key(partition) for partition in partitions}
        with ThreadPoolExecutor(16) as pool:
            records = dict(zip(keys, pool.map(self._read_record, keys), strict=True))
        for key in keys - wanted:
            self._forget(key, records[key])
        return {key: record for key, record in records.items() if key in wanted and record.output in files}

    def done_record(self, partition: Partition) -> DoneRecord | None:
        """Return the record of one partition; None where it is not scored yet."""
        content = self.storage.read(f"{DONE}/{self.key(partition)}.json")
        return None if content is None else DoneRecord(**json.loads(content))

    def write(
        self, partition: Partition, batches: Iterator[tuple[pa.RecordBatch, list[RefusedRow]]]
    ) -> DoneRecord:
        """Write a partition's scores and refused rows; its record comes last."""
        key = self.key(partition)
        name = str(PurePosixPath(partition.source).with_suffix(""))
        output = f"{name}-{partition.first_row:010d}-{key}{self.suffix}"
        rows = refused = 0
        with ExitStack() as stack:
            writer = self._open_writer(stack, output, SCHEMA)
            aside = None
            for batch, bad in batches:
                writer.write_batch(batch)
                if bad:
                    aside = aside or self._open_writer(stack, f"_refused/{output}", REFUSED_SCHEMA)
                    refusals = [{"file": partition.source, **asdict(row)} for row in bad]
                    aside.write_batch(pa.RecordBatch.from_pylist(refusals, REFUSED_SCHEMA))
                rows, refused = rows + batch.num_rows, refused + len(bad)
        record = DoneRecord(output, rows, refused)
        self.storage.write(f"{DONE}/{key}.json", json.dumps(asdict(record)).encode())
        return record

    def close(self, *, complete: bool) -> None:
        """Clear away what interrupted tasks left; mark the folder where all of the input is scored."""
        if complete:
            self.storage.write(SUCCESS, b"")
        self.storage.delete_folder("_tmp")

    def _read_record(self, key: str) -> DoneRecord:
        return DoneRecord(**json.loads(self.storage.read(f"{DONE}/{key}.json") or b"{}"))

    def _forget(self, key: str, record: DoneRecord) -> None:
        for name in (f"{DONE}/{key}.json", f"_refused/{record.output}", record.output):
            self.storage.delete(name)

    def _open_writer(
        self, stack: ExitStack, relative: str, schema: pa.Schema
    ) -> pq.ParquetWriter | pacsv.CSVWriter:
        stream = stack.enter_context(self.storage.replace_when_done(relative))
        if self.suffix == ".csv":
            return stack.enter_context(pacsv.CSVWriter(stream, schema))
        return stack.enter_context(pq.ParquetWriter(stream, schema, compression="zstd"))
