"""A bad row is refused alone, with the words that the reader of whole files uses."""

import numpy as np
import pandas as pd
import pytest

from training.data.transactions import read_chunks
from training.errors import BadFileError, NoSuchFileError
from training.scoring.row_checks import read_checked_rows
from training.settings.sections import LimitSettings


@pytest.fixture
def frame(few_transactions):
    frame = few_transactions.to_frame(np.arange(40)).drop(columns=["Class", "sample_weight"])
    return frame.assign(transaction_id=[f"T-{i}" for i in range(40)])


def read_all(path, rows=7):
    parts = list(read_checked_rows(path, rows, LimitSettings()))
    row = np.concatenate([part.row for part in parts])
    features = np.concatenate([part.features for part in parts])
    return row, features, [refused for part in parts for refused in part.refused]


def said_by_the_reader_of_whole_files(path):
    with pytest.raises(BadFileError) as caught:
        list(read_chunks(path))
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_good_file_is_read_as_by_the_other_reader(frame, tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path, index=False)
    row, features, refused = read_all(path)
    chunk = np.concatenate([chunk.features for chunk in read_chunks(path)])
    assert row.tolist() == list(range(1, 41))
    np.testing.assert_array_equal(features, chunk.astype(np.float32))
    assert not refused


# Each value in row 8 of V3, as it stands in a CSV.
BAD_CELLS = {
    "missing": "",
    "text": "abc",
    "not UTF-8": b"\xff\xfe",
    "NaN": "nan",
    "infinite": "-inf",
    "large": "1e39",
    "out of range": "1e6",
}


@pytest.mark.parametrize("cell", BAD_CELLS.values(), ids=BAD_CELLS)
def test_bad_cell_costs_its_row_alone(frame, tmp_path, cell):
    path = tmp_path / "rows.csv"
    marked = frame.assign(
        V3=[f"{value!r}" if i != 7 else "@@" for i, value in enumerate(frame["V3"].tolist())]
    )
    text = marked.to_csv(index=False).encode()
    path.write_bytes(text.replace(b"@@", cell if isinstance(cell, bytes) else cell.encode()))
    row, features, refused = read_all(path)
    assert row.tolist() == [i for i in range(1, 41) if i != 8]
    expected = frame.drop(index=7)[[*frame.columns[:30]]].to_numpy(np.float32)
    np.testing.assert_array_equal(features, expected)
    assert [(item.row, item.transaction_id) for item in refused] == [(8, "T-7")]
    assert refused[0].reason == said_by_the_reader_of_whole_files(path)


@pytest.mark.parametrize("bad", [None, np.nan, np.inf, 1e39])
def test_bad_value_in_parquet_costs_its_row_alone(frame, tmp_path, bad):
    path = tmp_path / "rows.parquet"
    values = frame["Amount"].astype(object)
    values[11] = bad
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    at = table.schema.get_field_index("Amount")
    pq.write_table(
        table.set_column(at, "Amount", pa.array(values.tolist(), pa.float64(), from_pandas=False)), path
    )
    row, _, refused = read_all(path)
    assert 12 not in row and len(row) == 39
    assert [item.reason for item in refused] == [said_by_the_reader_of_whole_files(path)]


@pytest.mark.parametrize("at", [1, 20, 40])
@pytest.mark.parametrize("line", ["1,2,3", ",".join("1" * 32)], ids=["short", "long"])
def test_row_with_another_number_of_fields_costs_itself_alone(frame, tmp_path, at, line):
    path = tmp_path / "rows.csv"
    lines = frame.to_csv(index=False).splitlines()
    lines[at] = line
    path.write_text("\n".join(lines) + "\n")
    row, features, refused = read_all(path)
    assert row.tolist() == [i for i in range(1, 41) if i != at]
    np.testing.assert_array_equal(features[:, 0], frame["Time"].drop(index=at - 1).to_numpy(np.float32))
    assert [item.reason for item in refused] == [said_by_the_reader_of_whole_files(path)]


def test_bad_rows_far_into_a_large_file_keep_their_numbers(few_transactions, tmp_path):
    """Several blocks of the CSV reader: the first ones are read quickly, the rest row by row."""
    frame = few_transactions.to_frame().drop(columns=["Class", "sample_weight", "transaction_id"])
    lines = pd.concat([frame[:3000]] * 20).to_csv(index=False).splitlines()
    assert sum(map(len, lines)) > 2 * (1 << 22)
    for at, line in ((41_001, "1,2"), (41_003, lines[41_003].replace(",", ",x", 1)), (60_000, "nothing")):
        lines[at] = line
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines))
    row, _, refused = read_all(path, 4096)
    assert [item.row for item in refused] == [41_001, 41_003, 60_000]
    assert row.tolist() == [i for i in range(1, 60_001) if i not in (41_001, 41_003, 60_000)]


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.tsv"])
def test_bad_cell_among_decimal_commas_costs_its_row_alone(frame, tmp_path, name):
    path = tmp_path / name
    separator = "\t" if name.endswith("tsv") else ";"
    marked = frame.astype({"V3": object})
    marked.loc[7, "V3"] = "abc"
    marked.to_csv(path, index=False, sep=separator, decimal=",")
    row, features, refused = read_all(path)
    assert row.tolist() == [i for i in range(1, 41) if i != 8]
    np.testing.assert_allclose(features[:, 29], frame["Amount"].drop(index=7).to_numpy(np.float32))
    assert [item.reason for item in refused] == [said_by_the_reader_of_whole_files(path)]


def test_file_without_one_good_row_has_all_its_rows_refused(frame, tmp_path):
    path = tmp_path / "rows.csv"
    frame.assign(V1="x").to_csv(path, index=False)
    row, _, refused = read_all(path)
    assert not len(row)
    assert [item.row for item in refused] == list(range(1, 41))


@pytest.mark.parametrize(
    "content", [b"", b"Time,V1\n1,2\n", b"PAR1 is not enough"], ids=["empty", "columns", "parquet"]
)
def test_bad_file_is_refused_in_the_same_words(frame, tmp_path, content):
    path = tmp_path / f"rows.{'parquet' if content.startswith(b'PAR1') else 'csv'}"
    path.write_bytes(content)
    with pytest.raises(BadFileError) as caught:
        list(read_checked_rows(path, 7, LimitSettings()))
    assert str(caught.value) == f"{path}: {said_by_the_reader_of_whole_files(path)}"


def test_header_alone_is_refused_in_the_same_words(frame, tmp_path):
    path = tmp_path / "rows.csv"
    frame.head(0).to_csv(path, index=False)
    with pytest.raises(BadFileError) as caught:
        list(read_checked_rows(path, 7, LimitSettings()))
    assert str(caught.value) == f"{path}: {said_by_the_reader_of_whole_files(path)}"


def test_missing_file_is_a_wrong_path(tmp_path):
    with pytest.raises(NoSuchFileError):
        list(read_checked_rows(tmp_path / "rows.csv", 7, LimitSettings()))
