"""A file of labels: every row goes to exactly one topic, and a row that is no label says why."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from streaming.errors import DataError
from streaming.labels.label_files import LabelRow, read_label_rows
from streaming.labels.records import Label, read_label
from streaming.labels.send import LabelTopics, send_labels
from streaming.records import Headers
from streaming.replay.rate_limiter import RateLimiter

NOW = 1_700_000_000_000
TOPICS = LabelTopics("labels", "labels.dead-letter")


class Sender:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes, Headers | None]] = []
        self.is_flushed = False

    def send(self, topic: str, key: bytes | None, value: bytes, headers: Headers | None = None) -> None:
        self.sent.append((topic, key, value, headers))

    def flush(self) -> None:
        self.is_flushed = True


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = [
            ",".join(rows[0]),
            *(",".join("" if v is None else str(v) for v in r.values()) for r in rows),
        ]
        path.write_text("\n".join(lines) + "\n")
    return path


def labels(path: Path) -> list[Any]:
    return [row.label for row in read_label_rows(path, "chargeback", lambda: NOW)]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_data_file_labels_its_rows_by_the_names_that_replay_gives_them(tmp_path: Path, suffix: str) -> None:
    rows = [{"Time": 1.0, "V1": 0.5, "Class": verdict} for verdict in (0, 1)]
    assert labels(write(tmp_path / f"t.{suffix}", rows)) == [
        Label("1", False, NOW, "chargeback"),
        Label("2", True, NOW, "chargeback"),
    ]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_time_origin_and_withdrawal_are_read(tmp_path: Path, suffix: str) -> None:
    columns = ("transaction_id", "is_fraud", "labelled_at_ms", "origin")
    table = [("a", True, NOW - 5, "control"), ("b", False, None, "investigation"), ("c", None, NOW - 7, None)]
    rows = [dict(zip(columns, cells, strict=True)) for cells in table]
    assert labels(write(tmp_path / f"t.{suffix}", rows)) == [
        Label("a", True, NOW - 5, "control"),
        Label("b", False, NOW, "investigation"),
        Label("c", None, NOW - 7, "chargeback"),
    ]


def test_a_missing_number_that_pandas_wrote_is_a_missing_cell(tmp_path: Path) -> None:
    rows = [{"transaction_id": "a", "Class": 1.0, "labelled_at_ms": float("nan")}]
    assert labels(write(tmp_path / "t.parquet", rows)) == [Label("a", True, NOW, "chargeback")]


def test_each_row_goes_to_exactly_one_topic_with_its_reason(tmp_path: Path) -> None:
    columns = ("transaction_id", "Class", "labelled_at_ms", "origin")
    table = [
        ("a", "1", "", ""),
        ("b", "2", "", ""),
        ("c", "0", "soon", ""),
        ("d", "0", "", "rumour"),
        ("e" * 129, "0", "", ""),
        ("f", "", "", ""),
        ("g", "0", str(NOW + 10**9), ""),
        ("h", "0", "1.5", ""),
    ]
    path = write(tmp_path / "t.csv", [dict(zip(columns, cells, strict=True)) for cells in table])
    sender, reports = Sender(), list[int]()
    done = send_labels(
        read_label_rows(path, "chargeback", lambda: NOW), sender, TOPICS, RateLimiter(0, 0.01), reports.append
    )
    assert sender.is_flushed and reports == [8] and done.rows == 8
    assert done.labels == {"fraud": 1, "withdrawn": 1}
    assert done.rejected == {"is_fraud": 1, "labelled_at_ms": 3, "origin": 1, "transaction_id": 1}
    good = [read_label(key, value, NOW) for topic, key, value, _ in sender.sent if topic == "labels"]
    assert [label.transaction_id for label in good if isinstance(label, Label)] == ["a", "f"]
    letters = [one for one in sender.sent if one[0] == "labels.dead-letter"]
    assert len(letters) == 6
    _, key, value, headers = letters[0]
    assert key == b"b" and json.loads(value)["Class"] == "2"
    told = {name: text.decode() for name, text in headers or []}
    assert (told["error.stage"], told["error.reason"], told["error.row"]) == ("label", "is_fraud", "2")
    assert told["error.topic"] == "labels"


def test_the_rate_and_a_stop_are_kept() -> None:
    row = LabelRow(1, {}, Label("a", True, NOW, "chargeback"))
    sender, reports = Sender(), list[int]()
    limiter = RateLimiter(0, 0.01)
    done = send_labels([row] * 5000, sender, TOPICS, limiter, reports.append, lambda: len(reports) == 2)
    assert done.rows == 2000 and len(sender.sent) == 2000


def test_files_that_cannot_be_labels_are_named(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "d.parquet").write_bytes(b"no parquet")
    (tmp_path / "twice.csv").write_text("Class,Class\n1,0\n")
    bad = {
        "does not exist": tmp_path / "none.csv",
        "lacks a column Class or is_fraud": write(tmp_path / "t.csv", [{"transaction_id": "a"}]),
        "as CSV": tmp_path / "e.csv",
        "as parquet": tmp_path / "d.parquet",
        "column twice: Class": tmp_path / "twice.csv",
    }
    for message, path in bad.items():
        with pytest.raises(DataError, match=message):
            labels(path)


def test_a_short_row_of_a_csv_file_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("transaction_id,origin,Class\na,rumour\n")
    (found,) = labels(tmp_path / "t.csv")
    assert not isinstance(found, Label)
