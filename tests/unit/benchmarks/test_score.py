"""What the benchmark of batch scoring measures: files of the size it says."""

import os
import subprocess
import sys
import time

import pandas as pd
import psutil
import pyarrow as pa
import pytest

from benchmarks.score import Run, Usage, peak_of, repeat, show


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
@pytest.mark.parametrize("rows", [3, 10, 25])
def test_file_of_any_size_repeats_the_first(tmp_path, name, rows):
    path = tmp_path / name
    repeat(pa.table({"V1": [float(i) for i in range(10)]}), rows, path)
    frame = pd.read_csv(path) if name == "a.csv" else pd.read_parquet(path)
    assert frame["V1"].tolist() == [float(i % 10) for i in range(rows)]


def test_table_shows_the_median_of_each_file(capsys):
    show([Run(1000, ".csv", "process", rate, 2.0, 1.0, 300.0) for rate in (100.0, 90_000.0, 120_000.0)])
    text = capsys.readouterr().out
    assert "90,000" in text
    assert "120,000" not in text


def test_peak_is_that_of_the_child_and_not_of_its_parent():
    """What `wait4` says of a child is at least what its parent held when it was started."""
    held = bytearray(300 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        time.sleep(0.3)
        assert 1 < peak_of(child.pid) < 200
        child.communicate(b"\n")
    assert peak_of(os.getpid()) > 300


def test_usage_counts_children_that_have_ended():
    script = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; x = sum(range(10**7)); time.sleep(.3)"])
sys.stdout.write("x"); sys.stdout.flush(); input()
"""
    used = Usage()
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        deadline = time.monotonic() + 60
        while len(used._processor_s) < 2 or psutil.Process(child.pid).children():
            assert time.monotonic() < deadline
            used.look(child.pid)
        used.look(child.pid)
        child.communicate(b"\n")
    assert len(used._processor_s) == 2
    assert used.processor_s > 0.1
    assert used.peak_mib > 5
