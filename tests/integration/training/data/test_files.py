"""Files, good and bad: the same content from CSV and parquet, and errors that name column and row."""

import errno
import gzip
import re
import time
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.factories import make_frame
from training.data.transactions import FEATURES, count_rows, from_frame, load_transactions, read_chunks
from training.data.writing import replace_when_done, translate_write_errors, write_frame
from training.errors import BadFileError, NoSuchFileError, OutputError, TrainingError, UsageError

FRAME = make_frame(60, seed=4)
SECRET = "4929123456"  # a value that no message may repeat


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, row_group_size=25)
    return path


def lines() -> list[str]:
    return FRAME.to_csv(index=False).splitlines()


def change_cell(column: str, row: int, text: str) -> str:
    """Return the CSV text with one cell (1-based data row) replaced."""
    rows = [line.split(",") for line in lines()]
    rows[row][rows[0].index(column)] = text
    return "\n".join(",".join(row) for row in rows) + "\n"


@pytest.fixture
def csv_file(tmp_path):
    def make(text: str | bytes, name: str = "bad.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return make


def refusal(path: Path, **options) -> str:
    with pytest.raises(TrainingError) as caught:
        load_transactions(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert SECRET not in message
    return message.removeprefix(f"{path}: ")


def chunk_refusal(path: Path, rows: int) -> str:
    with pytest.raises(BadFileError) as caught:
        list(read_chunks(path, rows))
    return str(caught.value).removeprefix(f"{path}: ")


# --- good files


def test_csv_and_parquet_hold_the_same(tmp_path):
    loaded = [load_transactions(write(FRAME, tmp_path / name)) for name in ("a.csv", "a.parquet")]
    assert loaded[0].fingerprint == loaded[1].fingerprint
    assert [data.name for data in loaded] == ["a.csv", "a.parquet"]
    assert np.array_equal(loaded[0].features, FRAME[list(FEATURES)].to_numpy())
    assert np.array_equal(loaded[0].label, FRAME["Class"])
    assert (loaded[0].sample_weight == 1).all()
    assert loaded[0].transaction_id is None


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_may_stand_in_any_order_among_others(tmp_path, suffix):
    plain = load_transactions(write(FRAME, tmp_path / f"plain.{suffix}"))
    other = FRAME[FRAME.columns[::-1]].assign(merchant="x", when="NA")
    assert load_transactions(write(other, tmp_path / f"other.{suffix}")).fingerprint == plain.fingerprint


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ids_and_weights_are_read(tmp_path, suffix):
    frame = FRAME.assign(transaction_id=[f"00{i}" for i in range(60)], sample_weight=2)
    data = load_transactions(write(frame, tmp_path / f"a.{suffix}"))
    assert data.transaction_id[7] == "007"
    assert data.sample_weight.tolist() == [2.0] * 60


def test_the_layout_of_the_original_is_read(csv_file):
    """Kaggle's creditcard.csv quotes its header and its classes; others begin with a byte order mark."""
    rows = [line.split(",") for line in lines()]
    quoted = [",".join(f'"{name}"' for name in rows[0])]
    quoted += [",".join([*row[:-1], f'"{row[-1]}"']) for row in rows[1:]]
    data = load_transactions(csv_file("\ufeff" + "\r\n".join(quoted) + "\r\n"))
    assert len(data) == 60
    assert data.frauds == FRAME["Class"].sum()


def test_numbers_may_be_padded_and_narrow(tmp_path, csv_file):
    padded = load_transactions(csv_file(change_cell("V3", 2, " 1.5 ")))
    assert padded.features[1, 3] == 1.5
    narrow = FRAME.astype(np.float32).astype({"Time": int, "Class": "int8"})
    assert load_transactions(write(narrow, tmp_path / "narrow.parquet")).frauds == padded.frauds


def test_labels_are_not_needed_for_scoring(tmp_path):
    path = write(FRAME.drop(columns="Class"), tmp_path / "a.csv")
    assert load_transactions(path, labelled=False).label is None
    assert len(next(read_chunks(path)).features) == 60


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("rows", [1, 7, 60, 1000])
def test_chunks_are_the_whole_file_in_order(tmp_path, suffix, rows):
    frame = FRAME.assign(transaction_id=[f"T-{i}" for i in range(60)])
    path = write(frame, tmp_path / f"a.{suffix}")
    chunks = list(read_chunks(path, rows))
    assert [chunk.first_row for chunk in chunks] == np.cumsum(
        [0, *(len(chunk.features) for chunk in chunks)]
    )[:-1].tolist()
    assert max(len(chunk.features) for chunk in chunks) <= rows
    assert np.array_equal(np.vstack([chunk.features for chunk in chunks]), frame[list(FEATURES)])
    assert np.concatenate([chunk.transaction_id for chunk in chunks]).tolist() == list(
        frame["transaction_id"]
    )
    assert count_rows(path) == 60


def test_a_big_csv_is_loaded_and_refused_within_seconds(tmp_path):
    frame = pd.concat([make_frame(20_000)] * 3, ignore_index=True)
    path = write(frame, tmp_path / "big.csv")
    start = time.perf_counter()
    assert len(load_transactions(path)) == 60_000
    assert sum(len(chunk.features) for chunk in read_chunks(path, 10_000)) == 60_000
    with path.open("a") as file:
        file.write(",".join(["1"] * 30) + ",zero\n")
    assert refusal(path) == "column Class, row 60001: holds text, not a number"
    assert time.perf_counter() - start < 20  # about 1 s on an idle core


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_what_is_written_reads_back_equal(tmp_path, name):
    frame = FRAME.assign(
        V1=np.pi * np.logspace(-30, 2, 60), transaction_id=[f'T "{i}", x' for i in range(60)]
    )
    write_frame(frame, tmp_path / name)
    data = load_transactions(tmp_path / name)
    assert data.fingerprint == from_frame(frame, "a").fingerprint
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.csv"
    write_frame(FRAME, path)
    with pytest.raises(Exception, match="object"):
        write_frame(FRAME.assign(V1=[object()] * 60), path)
    assert len(load_transactions(path)) == 60
    assert [item.name for item in tmp_path.iterdir()] == ["a.csv"]


def test_what_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=r"folder\.csv: is a folder, not a file"):
        write_frame(FRAME, tmp_path / "folder.csv")
    with (
        pytest.raises(OutputError, match=r"a\.csv: could not be written: No space left"),
        translate_write_errors(Path("a.csv")),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)  # root may write everywhere
    with pytest.raises(UsageError, match=r"a\.csv: cannot be written: Permission denied"):
        write_frame(FRAME, tmp_path / "a.csv")
    assert [item.name for item in tmp_path.iterdir()] == ["folder.csv"]


def test_a_half_written_file_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt), replace_when_done(tmp_path / "a.csv") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


# --- bad files


def test_a_path_that_leads_nowhere(tmp_path):
    assert refusal(tmp_path / "none.csv") == "there is no such file"
    (tmp_path / "folder.csv").mkdir()
    assert refusal(tmp_path / "folder.csv") == "is not a file"
    (tmp_path / "a.xlsx").write_text("x")
    assert refusal(tmp_path / "a.xlsx") == (
        "the suffix must be .csv, .tsv, .csv.gz, .tsv.gz, .zip, .parquet or .pq"
    )
    with pytest.raises(NoSuchFileError) as caught:
        next(read_chunks(tmp_path / "none.csv"))
    assert caught.value.exit_code == 2
    for name in ("none.csv", "none.parquet", "a.xlsx/none.csv"):
        with pytest.raises(NoSuchFileError, match=r"none\.\w+: there is no such file"):
            count_rows(tmp_path / name)
    with pytest.raises(NoSuchFileError, match=r"folder\.csv: is not a file"):
        count_rows(tmp_path / "folder.csv")
    with pytest.raises(NoSuchFileError, match=r"cannot be read: File name too long"):
        count_rows(tmp_path / ("x" * 300 + ".csv"))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, name):
    write(FRAME, tmp_path / name)

    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert refusal(tmp_path / name) == "cannot be read: Permission denied"


@pytest.mark.parametrize("name", ["bad.csv", "bad.parquet"])
def test_an_empty_file(csv_file, name):
    assert refusal(csv_file("", name)) == "the file is empty"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_header_without_rows(tmp_path, suffix):
    path = write(FRAME[:0], tmp_path / f"a.{suffix}")
    assert refusal(path) == "has a header but no rows"
    assert chunk_refusal(path, 10) == "has a header but no rows"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_missing_columns_are_all_named(tmp_path, suffix):
    assert refusal(write(FRAME.drop(columns="V7"), tmp_path / f"a.{suffix}")) == "missing column V7"
    poor = FRAME.drop(columns=["Time", "V7", "Class"])
    assert refusal(write(poor, tmp_path / f"b.{suffix}")) == "missing columns Time, V7, Class"


def as_text(path, text):
    path.write_text(text)


def as_gzip(path, text):
    path.write_bytes(gzip.compress(text.encode()))


def as_zip(path, text):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("creditcard.csv", text)
        archive.writestr("__MACOSX/creditcard.csv", "x")


def blank_header(text):
    header, _, rest = text.partition("\n")
    return header.replace(",", " ,\xa0") + "\n" + rest


def true_labels(text):
    return re.sub(r",1$", ",True", re.sub(r",0$", ",false", text, flags=re.M), flags=re.M)


@pytest.mark.parametrize(
    ("name", "write_text", "change"),
    [
        ("a.csv.gz", as_gzip, lambda text: text),
        ("a.zip", as_zip, lambda text: text),
        ("a.tsv", as_text, lambda text: text.replace(",", "\t")),
        ("a.csv", as_text, lambda text: text.replace(",", ";")),
        ("decimal.csv", as_text, lambda text: text.replace(",", ";").replace(".", ",")),
        (
            "blanks.csv",
            as_text,
            blank_header,
        ),
        (
            "true.csv",
            as_text,
            true_labels,
        ),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_tables_as_people_have_them(tmp_path, name, write_text, change):
    plain = load_transactions(write(FRAME, tmp_path / "plain.csv"))
    write_text(tmp_path / name, change("\n".join(lines()) + "\n"))
    found = load_transactions(tmp_path / name)
    assert found.fingerprint == plain.fingerprint
    assert count_rows(tmp_path / name) == 60


def test_quoted_line_breaks_over_a_block_are_read(tmp_path):
    frame = pd.concat([FRAME] * 100, ignore_index=True).assign(memo="opened,\n" + "called\n" * 120)
    path = write(frame, tmp_path / "memo.csv")
    assert path.stat().st_size > 4 << 20
    assert len(load_transactions(path)) == 6000
    assert sum(len(chunk.features) for chunk in read_chunks(path)) == 6000


@pytest.mark.parametrize("folders", [False, True])
def test_folders_of_parquet_files_are_read_in_order(tmp_path, folders):
    ordered = FRAME.sort_values("Class", kind="stable").reset_index(drop=True)
    plain = load_transactions(write(ordered, tmp_path / "plain.parquet"))
    table = tmp_path / "table"
    if folders:
        ordered.to_parquet(table, partition_cols=["Class"])
    else:
        table.mkdir()
        for i in range(3):
            ordered[i * 20 : i * 20 + 20].to_parquet(table / f"part-{i}.parquet")
        (table / "_SUCCESS").touch()
    assert load_transactions(table).fingerprint == plain.fingerprint
    assert count_rows(table) == 60


def test_columns_of_other_types_are_read_or_refused_by_place(tmp_path):
    plain = load_transactions(write(FRAME, tmp_path / "plain.parquet"))
    for name, label in (("bool", FRAME["Class"].astype(bool)), ("text", FRAME["Class"].astype(str))):
        found = load_transactions(write(FRAME.assign(Class=label), tmp_path / f"{name}.parquet"))
        assert found.fingerprint == plain.fingerprint
    amounts = FRAME.assign(Amount=[Decimal(f"{value:.2f}") for value in FRAME["Amount"]])
    assert load_transactions(write(amounts, tmp_path / "decimal.parquet")).features[:, 29] == pytest.approx(
        FRAME["Amount"].round(2)
    )
    ids = FRAME.assign(transaction_id=[f"T-{i}".encode() for i in range(60)])
    assert load_transactions(write(ids, tmp_path / "ids.parquet")).transaction_id[7] == "T-7"
    raw = FRAME.assign(transaction_id=[b"T-1"] * 40 + [b"\xff\xfe"] * 20)
    assert refusal(write(raw, tmp_path / "raw.parquet")) == (
        "column transaction_id, row 41: is not text in UTF-8"
    )
    times = FRAME.assign(Time=pd.Timestamp("2026-01-01"))
    assert "column Time, row 1: holds timestamp" in refusal(write(times, tmp_path / "time.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv.gz", b"not gzip", "not readable"),
        ("a.zip", b"not zip", "not readable"),
        ("b.csv.gz", gzip.compress(b"Time,V1\n" * 5000)[:-20], "not readable"),
    ],
)
def test_broken_archives_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in refusal(tmp_path / name)


def test_a_duplicate_header(csv_file, tmp_path):
    rows = lines()
    assert refusal(csv_file("\n".join([rows[0].replace("V5", "V4"), *rows[1:]]))) == "missing column V5"
    doubled = [f"{row},{row.split(',')[4]}" for row in rows]
    assert refusal(csv_file("\n".join(doubled))) == "column V4 is in the header 2 times"
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(FRAME)
    pq.write_table(table.append_column("V4", table.column("V4")), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet") == "column V4 is in the header 2 times"


def test_a_header_repeated_among_the_rows(csv_file):
    rows = lines()
    assert refusal(csv_file("\n".join([*rows[:5], *rows]))) == "column Time, row 5: holds text, not a number"


@pytest.mark.parametrize("text", [f"x{SECRET}", "NA", "1,5", "0x10", "--1", "1_0", "true", "1.5€", "-"])
@pytest.mark.parametrize("row", [1, 33, 60])
def test_text_where_a_number_belongs(csv_file, row, text):
    text = text if "," not in text else f'"{text}"'
    assert refusal(csv_file(change_cell("V9", row, text))).startswith(f"column V9, row {row}: holds text")


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-Infinity", "1e999", "3.5e38", "-1e300"])
def test_what_is_not_finite_as_float32(csv_file, text):
    path = csv_file(change_cell("Amount", 12, text))
    reason = "the value is not finite (NaN, infinite, or too large for float32)"
    assert refusal(path) == f"column Amount, row 12: {reason}"
    assert chunk_refusal(path, 5) == f"column Amount, row 12: {reason}"


def test_how_many_more_is_said(tmp_path):
    frame = FRAME.copy()
    frame.loc[[4, 9, 44], "V2"] = np.inf
    assert refusal(write(frame, tmp_path / "a.csv")).startswith(
        "column V2, row 5 (and 2 more): the value is not"
    )


@pytest.mark.parametrize("column", ["V1", "Class", "Amount"])
def test_an_empty_cell(csv_file, tmp_path, column):
    assert refusal(csv_file(change_cell(column, 8, ""))) == f"column {column}, row 8: the value is missing"
    frame = FRAME.astype("Float64")
    frame.loc[7, column] = pd.NA
    assert refusal(write(frame, tmp_path / "a.parquet")) == f"column {column}, row 8: the value is missing"


@pytest.mark.parametrize(("label", "row"), [("2", 5), ("0.5", 1), ("-1", 60)])
def test_a_label_that_is_neither(csv_file, label, row):
    assert (
        refusal(csv_file(change_cell("Class", row, label)))
        == f"column Class, row {row}: the value is neither 0 nor 1"
    )


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only(tmp_path, label):
    path = write(FRAME.assign(Class=label), tmp_path / "a.parquet")
    assert refusal(path) == f"column Class holds one class only, row 1 to 60 are all {label}"
    assert load_transactions(path, labelled=False).label is None


@pytest.mark.parametrize("weight", [0.0, -2.0])
def test_a_weight_that_is_not_positive(tmp_path, weight):
    frame = FRAME.assign(sample_weight=1.0)
    frame.loc[[20, 30], "sample_weight"] = weight
    path = write(frame, tmp_path / "a.parquet")
    assert refusal(path) == "column sample_weight, row 21 (and 1 more): the value is not above 0"


def test_a_missing_id(tmp_path):
    frame = FRAME.assign(transaction_id=["a", None, *"b" * 58])
    for name in ("a.csv", "a.parquet"):
        assert refusal(write(frame, tmp_path / name)) == "column transaction_id, row 2: the value is missing"


@pytest.mark.parametrize(("cells", "found"), [(30, 30), (33, 33), (1, 1)])
def test_a_row_with_another_number_of_cells(csv_file, cells, found):
    rows = lines()
    rows[4] = ",".join(["1"] * cells)
    expected = f"row 4: has {found} fields where the header has 31"
    assert refusal(csv_file("\n".join(rows))) == expected
    assert chunk_refusal(csv_file("\n".join(rows)), 2) == expected


def test_the_first_of_several_problems_is_named(csv_file):
    rows = change_cell("V3", 2, "x").splitlines()
    rows[5] = "1,2"
    assert refusal(csv_file("\n".join(rows))) == "column V3, row 2: holds text, not a number"
    rows[5], rows[2] = rows[2], rows[5]
    assert refusal(csv_file("\n".join(rows))) == "row 2: has 2 fields where the header has 31"


def test_a_quote_that_is_never_closed(csv_file):
    assert refusal(csv_file(change_cell("V9", 33, '"4'))) == "row 33: has 10 fields where the header has 31"


def test_bytes_that_are_not_text(csv_file):
    assert refusal(csv_file(b"\xff\xfe\x00T")) == "the header is not CSV text in UTF-8"
    broken = change_cell("V3", 2, "@").encode().replace(b"@", b"\xff\xfe")
    assert refusal(csv_file(broken)) == "column V3, row 2: holds text, not a number"
    ids = "\n".join([lines()[0] + ",transaction_id", *(f"{line},@" for line in lines()[1:])])
    assert (
        refusal(csv_file(ids.encode().replace(b"@", b"\xff")))
        == "column transaction_id, row 1: is not text in UTF-8"
    )


def test_a_damaged_parquet_file(tmp_path):
    whole = write(FRAME, tmp_path / "whole.parquet").read_bytes()
    for name, content in {
        "cut.parquet": whole[: len(whole) // 2],
        "csv.parquet": "\n".join(lines()).encode(),
        "tail.parquet": whole[-100:],
    }.items():
        (tmp_path / name).write_bytes(content)
        assert refusal(tmp_path / name) == "is not a readable parquet file; is it cut off?"
    (tmp_path / "hole.parquet").write_bytes(
        whole[:200] + bytes(len(whole) // 3) + whole[200 + len(whole) // 3 :]
    )
    assert "parquet file" in refusal(tmp_path / "hole.parquet")


@pytest.mark.parametrize(("value", "kind"), [("1.5", "string"), (True, "bool")])
def test_a_parquet_column_that_is_not_numeric(tmp_path, value, kind):
    message = refusal(write(FRAME.assign(V3=value), tmp_path / "a.parquet"))
    assert re.fullmatch(rf"column V3, row 1: holds (large_)?{kind} where a number belongs", message)


def test_a_row_is_named_across_blocks_and_chunks(tmp_path):
    frame = make_frame(30_000)
    frame.loc[29_000, "V1"] = np.inf
    for name in ("a.csv", "a.parquet"):
        path = write(frame, tmp_path / name)
        assert refusal(path).startswith("column V1, row 29001:")
        assert chunk_refusal(path, 999).startswith("column V1, row 29001:")


def test_chunks_before_a_bad_row_are_read(tmp_path):
    frame = FRAME.copy()
    frame.loc[59, "V1"] = np.nan
    chunks = read_chunks(write(frame, tmp_path / "a.parquet"), 25)
    assert [next(chunks).first_row, next(chunks).first_row] == [0, 25]
    with pytest.raises(BadFileError, match=r"column V1, row 60: the value is (missing|not finite)"):
        next(chunks)


def test_a_blank_line_is_no_row(csv_file):
    assert len(load_transactions(csv_file("\n\n".join(lines()) + "\n\n"))) == 60
