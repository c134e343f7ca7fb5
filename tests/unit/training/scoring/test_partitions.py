"""What is scored together: every row of the input in exactly one partition, whose key follows its content."""

import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from training.errors import NoSuchFileError
from training.scoring.partitions import OPEN_COST_BYTES, Partition, pack_partitions, plan_partitions
from training.scoring.storage import Storage


def write_rows(path, rows, group=1000):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({"V1": np.random.default_rng(1).normal(size=rows)})
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path, row_group_size=group)


def test_files_of_a_folder_come_in_order_without_hidden_and_other_ones(tmp_path):
    for name in ("date=2/a.parquet", "date=1/b.csv", "c.CSV", "_refused/d.parquet", ".e.parquet", "f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    plan = plan_partitions(Storage.at(str(tmp_path)), 1 << 20)
    assert [part.source for part in plan.partitions] == ["c.CSV", "date=1/b.csv", "date=2/a.parquet"]
    assert (plan.is_folder, plan.ignored) == (True, 1)


@pytest.mark.parametrize("partition_bytes", [1, 20_000, 1 << 30])
def test_large_parquet_is_cut_between_row_groups_without_gap(tmp_path, partition_bytes):
    path = tmp_path / "a.parquet"
    write_rows(path, 10_500)
    parts = plan_partitions(Storage.at(str(path)), partition_bytes).partitions
    metadata = pq.read_metadata(path)
    if partition_bytes > path.stat().st_size:
        assert [part.row_groups for part in parts] == [None]
        return
    groups = [group for part in parts for group in part.row_groups]
    assert groups == list(range(metadata.num_row_groups))
    assert len(parts) == (11 if partition_bytes == 1 else 4)
    for part in parts:
        assert part.first_row == 1000 * part.row_groups[0]


def test_csv_and_unreadable_parquet_stay_whole(tmp_path):
    write_rows(tmp_path / "a.csv", 5000)
    (tmp_path / "b.parquet").write_bytes(b"PAR1" * 100)
    parts = plan_partitions(Storage.at(str(tmp_path)), 1).partitions
    assert [(part.source, part.row_groups) for part in parts] == [("a.csv", None), ("b.parquet", None)]


def test_key_changes_with_content_release_and_kind_of_output(tmp_path):
    path = tmp_path / "a.csv"
    write_rows(path, 10)

    def plan():
        return plan_partitions(Storage.at(str(tmp_path)), 1).partitions[0]

    first = plan()
    keys = {first.key("1 abc", ".parquet"), first.key("2 abc", ".parquet"), first.key("1 abc", ".csv")}
    assert plan().key("1 abc", ".parquet") == first.key("1 abc", ".parquet")
    os.utime(path, ns=(1, 1))
    keys.add(plan().key("1 abc", ".parquet"))
    assert len(keys) == 4


@pytest.mark.parametrize("names", [None, [], ["a.txt"]], ids=["no folder", "empty", "other suffix"])
def test_nothing_to_score_is_a_wrong_path(tmp_path, names):
    folder = tmp_path / "data"
    if names is not None:
        folder.mkdir()
        for name in names:
            (folder / name).write_text("x")
    with pytest.raises(NoSuchFileError, match=str(folder)):
        plan_partitions(Storage.at(str(folder)), 1)


def part(size, row_groups=None):
    return Partition(f"{size}.parquet", size, 0, row_groups)


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_small_files_go_together_and_no_core_is_left_without(cores):
    parts = [part(i) for i in range(1000)]
    tasks = pack_partitions(parts, 128 << 20, cores)
    assert [item for task in tasks for item in task] == parts
    assert min(cores, 1000) <= len(tasks) <= 70


def test_large_partitions_stay_apart():
    parts = [part(100 << 20), part(100 << 20), part(1, (0,)), part(1, (1,)), part(1), part(2)]
    assert [len(task) for task in pack_partitions(parts, 128 << 20, 2)] == [1, 1, 1, 1, 2]
    assert OPEN_COST_BYTES < 128 << 20
