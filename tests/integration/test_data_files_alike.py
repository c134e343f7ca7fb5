"""`train`, `score`, its Spark engine, `replay` and `label` read the same files alike, or all refuse them.

The packages import nothing of each other, so the rules stand twice; these cases hold them together.
"""

import gzip
import itertools
import json
import re
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from streaming.errors import DataError
from streaming.labels.label_files import read_label_rows
from streaming.labels.records import Label
from streaming.replay.data_files import read_transactions
from tests.factories import make_frame
from training.data.transactions import FEATURES, load_transactions, read_chunks
from training.errors import TrainingError
from training.scoring.row_checks import read_checked_rows
from training.settings.sections import LimitSettings

FRAME = make_frame(40, seed=4)
IDS = [f"T-{i}" for i in range(len(FRAME))]
TEXT = FRAME.to_csv(index=False, lineterminator="\n")


def text(name: str, change: Callable[[str], str] = str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        content = change(TEXT).encode("utf-8", "surrogateescape")
        if name.lower().endswith(".gz"):
            path.write_bytes(gzip.compress(content))
        elif name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("creditcard.csv", content)
                archive.writestr("__MACOSX/creditcard.csv", "x")
        else:
            path.write_bytes(content)
        return path

    return write


def table(name: str, frame: pd.DataFrame, **options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        frame.to_parquet(folder / name, **options)
        return folder / name

    return write


def parts(folder: Path) -> Path:
    data = folder / "data"
    for day, rows in (("date=2026-01-01", FRAME[:15]), ("date=2026-01-02", FRAME[15:])):
        (data / day).mkdir(parents=True)
        rows.to_parquet(data / day / "part-0.parquet")
    (data / "_SUCCESS").touch()
    (data / "_old.parquet").write_bytes(b"no parquet")
    return data


def change_cell(cell: str, column: str = "V3", row: int = 7) -> Callable[[str], str]:
    def change(content: str) -> str:
        lines = [line.split(",") for line in content.splitlines()]
        lines[row][lines[0].index(column)] = cell
        return "\n".join(",".join(line) for line in lines) + "\n"

    return change


def blank_header(content: str) -> str:
    header, _, rest = content.partition("\n")
    return header.replace(",", " ,\xa0") + "\n" + rest


def with_memo(cell: str) -> Callable[[str], str]:
    """Add a column that nobody uses."""

    def change(content: str) -> str:
        header, *rows = content.splitlines()
        return "\n".join([f"memo,{header}", *(f"{cell},{row}" for row in rows)]) + "\n"

    return change


GOOD = {
    "csv": text("a.csv"),
    "tsv": text("a.tsv", lambda t: t.replace(",", "\t")),
    "csv.gz": text("a.csv.gz"),
    "tsv.gz": text("a.TSV.GZ", lambda t: t.replace(",", "\t")),
    "zip": text("a.zip"),
    "semicolons": text("a.csv", lambda t: t.replace(",", ";")),
    "decimal commas": text("a.csv", lambda t: t.replace(",", ";").replace(".", ",")),
    "zipped decimal commas": text("a.zip", lambda t: t.replace(",", ";").replace(".", ",")),
    "blanks in the header": text("a.csv", blank_header),
    "byte order mark": text("a.csv", lambda t: "\ufeff" + t),
    "windows line ends": text("a.csv", lambda t: t.replace("\n", "\r\n")),
    "blank lines": text("a.csv", lambda t: t.replace("\n", "\n\n", 3).replace("\n\n", "\n", 1)),
    "no line end at the end": text("a.csv", lambda t: t.rstrip("\n")),
    "padded numbers": text("a.csv", lambda t: re.sub(r"(?<=\n)", " ", t).replace("\n ", "\n ").rstrip(" ")),
    "line breaks in a cell": text("a.csv", with_memo('"opened,\ncalled"')),
    "latin-1 in a further column": text("a.csv", with_memo("caf\udce9")),
    "parquet": table("a.parquet", FRAME),
    "pq": table("a.pq", FRAME),
    "row groups": table("a.parquet", FRAME, row_group_size=7),
    "folder of partitions": parts,
    "float32 and integers": table("a.parquet", FRAME.assign(Time=FRAME["Time"].astype(int))),
    "ids": table("a.parquet", FRAME.assign(transaction_id=IDS)),
    "ids of bytes": table("a.parquet", FRAME.assign(transaction_id=[i.encode() for i in IDS])),
    "ids of numbers": table("a.parquet", FRAME.assign(transaction_id=np.arange(len(FRAME)))),
    "ids of categories": table("a.parquet", FRAME.assign(transaction_id=pd.Categorical(IDS))),
    "decimals": table("a.parquet", FRAME.assign(Amount=[Decimal(f"{v:.2f}") for v in FRAME["Amount"]])),
}
BAD = {
    "unknown suffix": text("a.txt"),
    "no gzip": lambda folder: _bytes(folder / "a.csv.gz", b"no gzip"),
    "cut gzip": lambda folder: _bytes(folder / "a.csv.gz", gzip.compress(TEXT.encode())[:-20]),
    "no zip": lambda folder: _bytes(folder / "a.zip", b"no zip"),
    "no parquet": lambda folder: _bytes(folder / "a.parquet", b"no parquet"),
    "empty": lambda folder: _bytes(folder / "a.csv", b""),
    "no rows": text("a.csv", lambda t: t.partition("\n")[0] + "\n"),
    "no column V7": text("a.csv", lambda t: t.replace("V7,", "V77,", 1)),
    "a column twice": text("a.csv", lambda t: t.replace("V7,", "V6,", 1)),
    "header in UTF-16": lambda folder: _bytes(folder / "a.csv", TEXT.encode("utf-16")),
    "too few cells": text("a.csv", lambda t: t + "1,2,3\n"),
    "too many cells": text("a.csv", lambda t: t.replace("\n", ",9\n").replace(",9\n", "\n", 1)),
    "an open quote": text("a.csv", change_cell('"0.5')),
    "id missing": table("a.parquet", FRAME.assign(transaction_id=[None, *IDS[1:]])),
    "id no text": table("a.parquet", FRAME.assign(transaction_id=[b"\xff\xfe"] * len(FRAME))),
    "null": table("a.parquet", FRAME.assign(V3=[None, *FRAME["V3"][1:]])),
    "column of text": table("a.parquet", FRAME.assign(V3=FRAME["V3"].astype(str))),
    "column of truth values": table("a.parquet", FRAME.assign(V3=FRAME["V3"] > 0)),
    "column of times": table("a.parquet", FRAME.assign(Time=pd.Timestamp("2026-01-01"))),
    **{
        f"cell {cell!r}": text("a.csv", change_cell(cell))
        for cell in (
            "",
            "x",
            "NA",
            "1_0",
            "0x10",
            "--1",
            "true",
            "1.5€",
            "\xa01.5",
            "\u0661",
            "nan",
            "inf",
            "1e39",
        )
    },
}


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read_all(path: Path) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return ids and features as each reader sees them."""
    loaded = load_transactions(path)
    numbers = [str(i + 1) for i in range(len(loaded))]
    found = {"train": (loaded.transaction_id, loaded.features)}
    chunks = list(read_chunks(path, 9))
    ids = [chunk.transaction_id for chunk in chunks]
    found["score"] = (
        None if ids[0] is None else np.concatenate(ids),
        np.concatenate([c.features for c in chunks]),
    )
    checked = list(read_checked_rows(path, 9, LimitSettings()))
    assert not any(part.refused for part in checked)
    ids = [None if part.transaction_id is None else part.transaction_id.to_pylist() for part in checked]
    features = np.concatenate([part.features for part in checked])
    found["spark"] = (None if ids[0] is None else list(itertools.chain.from_iterable(ids)), features)
    records = [json.loads(value) for _, value in read_transactions(path)]
    found["replay"] = (
        [record["transaction_id"] for record in records],
        np.array([[record[name] for name in FEATURES] for record in records]),
    )
    return {name: (numbers if ids is None else list(ids), rows) for name, (ids, rows) in found.items()}


@pytest.mark.parametrize("case", GOOD)
def test_good_files_are_read_alike(tmp_path, case):
    path = GOOD[case](tmp_path)
    found = read_all(path)
    for name, (ids, rows) in found.items():
        assert ids == found["train"][0], name
        np.testing.assert_allclose(rows, found["train"][1], rtol=1e-7 if name == "spark" else 0, err_msg=name)
    np.testing.assert_allclose(found["train"][1], FRAME[list(FEATURES)], atol=0.006)
    labels = [row.label for row in read_label_rows(path, "control", lambda: 1)]
    assert all(isinstance(label, Label) for label in labels)
    assert [label.transaction_id for label in labels] == found["train"][0]
    assert [label.is_fraud for label in labels] == FRAME["Class"].astype(bool).tolist()


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_all(tmp_path, case):
    path = BAD[case](tmp_path)
    for read in (load_transactions, lambda path: list(read_chunks(path, 9))):
        with pytest.raises(TrainingError, match=re.escape(str(path))):
            read(path)
    with pytest.raises(DataError, match=re.escape(str(path))):
        list(read_transactions(path))
    refused: list[object] = []
    try:
        refused += [row for part in read_checked_rows(path, 9, LimitSettings()) for row in part.refused]
    except TrainingError:
        refused.append("the file")
    assert refused
