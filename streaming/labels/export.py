"""Writes labelled transactions as a data file, ready for ``training train``."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from streaming.errors import DataError
from streaming.labels.known_labels import Decided, Known, KnownLabels, Stratum
from streaming.labels.records import Label, read_label
from streaming.labels.strata import find_stratum
from streaming.output_records import SourcePlace
from streaming.records import InputRecord
from streaming.replay.data_files import FEATURES

#: A reader in chunks holds a row group at a time.
ROW_GROUP = 65_536

Records = Iterable[list[InputRecord]]


class _Decision(msgspec.Struct, gc=False):
    decision: str
    release: str
    source: SourcePlace
    decided_at_ms: int
    is_fraud: bool = True
    transaction_id: str | None = None


_read_decision = msgspec.json.Decoder(_Decision).decode
_read_transaction = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass
class Exported:
    """What was read and written."""

    strata: list[Stratum] = field(default_factory=list)
    frauds: int = 0
    genuine: int = 0
    undecided_or_unknown: int = 0
    rejected_labels: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """Rows written."""
        return self.frauds + self.genuine

    @property
    def unrepresented(self) -> int:
        """Transactions of unknown class that no control sample stands for."""
        return sum(one.unknown for one in self.strata if not one.control)


def collect(
    known: KnownLabels,
    labels: Records,
    decisions: Records,
    is_wanted: Callable[[str, int, int], bool],
    rejected: Counter[str],
) -> None:
    """Take all labels in, and the decisions on a range.

    Parameters
    ----------
    is_wanted : callable
        Whether topic, partition and offset of a transaction lie in the range.
    rejected : Counter
        Counts records that are no labels, by reason.
    """
    for chunk in labels:
        known.add_labels(_labels(chunk, rejected))
    for chunk in decisions:
        known.add_decisions(_decisions(chunk, is_wanted))


def _labels(chunk: Iterable[InputRecord], rejected: Counter[str]) -> Iterator[Label]:
    for record in chunk:
        found = read_label(record.key, record.value, record.timestamp_ms)
        if isinstance(found, Label):
            yield found
        else:
            rejected[found.reason] += 1


def _decisions(chunk: Iterable[InputRecord], is_wanted: Callable[[str, int, int], bool]) -> Iterator[Decided]:
    for record in chunk:
        try:
            one = _read_decision(record.value or b"")
        except ValueError:
            continue  # not written by a bridge
        if is_wanted(one.source.topic, one.source.partition, one.source.offset):
            stratum = find_stratum(one.decision, one.is_fraud)
            source = (one.source.partition, one.source.offset)
            yield Decided(*source, one.transaction_id, one.release, stratum, one.decided_at_ms)


def export(
    known: KnownLabels,
    transactions: Records,
    output: Path,
    result: Exported,
    report: Callable[[int], None] = lambda rows: None,
) -> Exported:
    """Write every transaction whose class is known, in the order of the stream's partitions.

    Parameters
    ----------
    known : KnownLabels
        After `KnownLabels.weigh`.
    transactions : iterable of list of InputRecord
        The range.
    output : pathlib.Path
        Parquet file, written whole or not at all: the 31 columns, ``transaction_id``, ``sample_weight``, and
        ``label_origin`` (``none``: genuine because no chargeback came in time).
    result : Exported
        Counts what is written.
    report : callable
        Told the number of rows after each row group.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    with _parquet_file(output) as write:
        rows: list[dict[str, Any]] = []
        for chunk in transactions:
            for record in chunk:
                found = known.find(record.partition, record.offset)
                if found is None:
                    result.undecided_or_unknown += 1
                    continue
                rows.append(_row(record, found))
                result.frauds += found.is_fraud
                result.genuine += not found.is_fraud
            if len(rows) >= ROW_GROUP:
                write(rows)
                report(result.rows)
                rows = []
        write(rows)
    return result


def _row(record: InputRecord, known: Known) -> dict[str, Any]:
    transaction: Mapping[str, Any] = _read_transaction(record.value or b"{}")
    identity = transaction.get("transaction_id")
    return {
        "transaction_id": f"{record.partition}:{record.offset}" if identity is None else identity,
        **{
            name: float(transaction[name]) for name in FEATURES
        },  # the service has decided it, so they are there
        "Class": int(known.is_fraud),
        "sample_weight": known.weight,
        "label_origin": known.origin,
    }


@contextmanager
def _parquet_file(output: Path) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("Writing parquet needs pyarrow: install the group `parquet`.") from error
    schema = pa.schema(
        [
            ("transaction_id", pa.string()),
            *((name, pa.float64()) for name in FEATURES),
            ("Class", pa.int8()),
            ("sample_weight", pa.float64()),
            ("label_origin", pa.string()),
        ]
    )
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema)) if rows else None
        part.replace(output)
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)
