import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from streaming.errors import DataError
from streaming.replay.data_files import FEATURES, read_transactions
from streaming.replay.rate_limiter import RateLimiter
from streaming.replay.replay import data_file, repeated, replay


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps = 0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        self.now += seconds


class RecordSender:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes]] = []
        self.is_flushed = False

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        self.sent.append((topic, key, value))

    def flush(self) -> None:
        self.is_flushed = True


def row(number: int, **changes: Any) -> dict[str, Any]:
    features = {name: number + place / 100 for place, name in enumerate(FEATURES)}
    return {**features, "Class": 1, "sample_weight": 15.1, **changes}


def write_csv(path: Path, rows: list[dict[str, Any]], names: list[str] | None = None) -> Path:
    names = names or list(rows[0])
    lines = [",".join(names), *(",".join(str(found[name]) for name in names) for found in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_csv_and_parquet_give_the_same_records(tmp_path: Path) -> None:
    rows = [row(number) for number in range(5)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    from_csv = list(read_transactions(write_csv(tmp_path / "t.csv", rows)))
    assert from_csv == list(read_transactions(tmp_path / "t.parquet"))
    key, value = from_csv[3]
    assert key == b"4"  # rows are counted from 1, as `training score` does
    assert list(json.loads(value)) == ["transaction_id", *FEATURES]
    assert json.loads(value)["V1"] == 3.01


def test_neither_label_nor_weight_is_forwarded(tmp_path: Path) -> None:
    ((_, value),) = read_transactions(write_csv(tmp_path / "t.csv", [row(1, extra="x")]))
    assert not {"Class", "sample_weight", "extra"} & json.loads(value).keys()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ids_of_the_file_are_kept(tmp_path: Path, suffix: str) -> None:
    rows = [row(number, transaction_id=f"T-{number}") for number in range(3)]
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        write_csv(path, rows)
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    assert [key for key, _ in read_transactions(path)] == [b"T-0", b"T-1", b"T-2"]


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    rows = [row(2)]
    plain = list(read_transactions(write_csv(tmp_path / "a.csv", rows)))
    turned = list(read_transactions(write_csv(tmp_path / "b.csv", rows, list(reversed(rows[0])))))
    assert plain == turned


def test_bad_files_are_named(tmp_path: Path) -> None:
    good = row(1)
    bad = {
        "does not exist": tmp_path / "none.csv",
        "lacks the column V7": write_csv(tmp_path / "a.csv", [good], [n for n in good if n != "V7"]),
        "row 2: a cell is": write_csv(tmp_path / "b.csv", [good, {**good, "V3": "text"}]),
        "column twice: Amount": write_csv(tmp_path / "c.csv", [good], [*good, "Amount"]),
        "row 2: a cell": write_csv(tmp_path / "nan.csv", [good, {**good, "V3": "nan"}]),
        "row 1: a cell": write_csv(tmp_path / "inf.csv", [{**good, "Amount": "1e999"}]),
    }
    (tmp_path / "d.parquet").write_bytes(b"no parquet")
    (tmp_path / "e.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "f.csv").write_bytes(b"")
    bad |= {
        "as parquet": tmp_path / "d.parquet",
        "as CSV": tmp_path / "e.csv",
        "lacks columns": tmp_path / "f.csv",
    }
    for message, path in bad.items():
        with pytest.raises(DataError, match=message):
            list(read_transactions(path))


@pytest.mark.parametrize("rate", [1, 7, 333, 1000, 250_000])
def test_the_rate_is_kept_within_one_percent(rate: float) -> None:
    clock = Clock()
    limiter = RateLimiter(rate, 0.005, clock, clock.sleep)
    sent = 0
    while clock.now < 120.0:
        sent += limiter.next_chunk()
    assert sent == pytest.approx(rate * (clock.now - 100.0), rel=0.01, abs=1)


def test_a_delay_is_caught_up() -> None:
    clock = Clock()
    limiter = RateLimiter(1000, 0.005, clock, clock.sleep)
    limiter.next_chunk()
    clock.now += 2.0
    assert [limiter.next_chunk() for _ in range(2)] == [1000, 1000]
    assert clock.sleeps == 0
    assert limiter.next_chunk() == pytest.approx(5, abs=1)


def test_a_rate_that_nobody_can_keep_never_fills_the_memory() -> None:
    clock, sender, sent = Clock(), RecordSender(), list[int]()
    limiter = RateLimiter(1_000_000, 0.005, clock, clock.sleep)

    def slowly(count: int) -> None:
        clock.now += 10  # a chunk takes long: what is due meanwhile grows with each
        sent.append(count)

    endless = itertools.repeat((b"k", b"{}"))
    replay(endless, sender, "in", limiter, slowly, lambda: len(sent) == 5)
    assert [after - before for before, after in itertools.pairwise([0, *sent])] == [1, *[1000] * 4]


def test_flat_out_never_sleeps() -> None:
    clock = Clock()
    limiter = RateLimiter(0, 0.005, clock, clock.sleep)
    assert [limiter.next_chunk() for _ in range(3)] == [1000] * 3
    assert clock.sleeps == 0


def test_replay_sends_all_in_order_and_waits_for_the_broker(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [row(number) for number in range(2500)])
    sender, reports = RecordSender(), list[int]()
    done = replay(repeated(path, False, None), sender, "in", RateLimiter(0, 0.005), reports.append)
    assert done.transactions == 2500
    assert done.per_second > 0
    assert [key for _, key, _ in sender.sent] == [str(n).encode() for n in range(1, 2501)]
    assert sender.is_flushed
    assert reports == [1000, 2000, 2500]


def test_a_loop_begins_again_and_a_limit_ends_it(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [row(0), row(1)])
    assert [key for key, _ in repeated(path, True, 5)] == [b"1", b"2", b"1", b"2", b"1"]
    assert len(list(repeated(path, False, 1))) == 1


def test_a_loop_over_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",".join(FEATURES) + "\n")
    with pytest.raises(DataError, match="has no rows"):
        list(repeated(tmp_path / "t.csv", True, 5))


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_cell_of_a_parquet_file_that_is_no_number_is_named(tmp_path: Path, value: float | None) -> None:
    table = pa.Table.from_pylist([row(0), row(1, V7=value)])
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 2: a cell is missing or is no number"):
        list(read_transactions(tmp_path / "t.parquet"))


def test_a_column_of_texts_is_no_number(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist([row(0, V7="1.5")]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column V7 holds string where a number belongs"):
        list(read_transactions(tmp_path / "t.parquet"))


def test_the_simulator_is_run_as_a_command_and_cleaned_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        seen.append(command)
        Path(command[-1]).write_text("x")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("streaming.replay.replay.subprocess.run", run)
    with data_file("simulator", 77) as path:
        assert path.exists()
    assert not path.parent.exists()
    assert seen[0][1:6] == ["-m", "training", "simulate", "--rows", "77"]


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("No module named training", "not installed"),
        ("boom\nthe last line", "the last line"),
        ("", "no message"),
    ],
)
def test_a_simulator_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, stderr: str, message: str) -> None:
    failed: subprocess.CompletedProcess[str] = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr("streaming.replay.replay.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(DataError, match=message), data_file("simulator", 1):
        pass
