"""`score --engine spark` with executors in processes of their own: equal scores through every fault."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from tests.conftest import ROOT, home_variables
from tests.training_fixtures import NEEDS_SPARK, THIRD_PARTY_WARNINGS
from training.registry.releases import Registry
from training.scoring.scorer import ReleaseScorer, score_file
from training.settings.load import DEFAULT_CONFIG

pytestmark = [*THIRD_PARTY_WARNINGS, *NEEDS_SPARK, pytest.mark.timeout(1200)]
CLUSTER = "local-cluster[2,1,1024]"
FILES = 1000


@pytest.fixture(scope="module")
def home(published, tmp_path_factory):
    """Return a folder whose registry has a champion."""
    folder = tmp_path_factory.mktemp("spark")
    shutil.copy(published / "mlflow.db", folder / "mlflow.db")
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    registry.promote(registry.release("1"))
    return folder


@pytest.fixture
def frame(few_transactions):
    return few_transactions.to_frame(np.arange(3000)).drop(columns=["Class", "sample_weight"])


@pytest.fixture
def expected(frame, home, tmp_path):
    """Return what one process says about the frame."""
    registry = Registry(f"sqlite:///{home}/mlflow.db")
    release = registry.fetch(registry.release("1"), tmp_path)
    frame.to_parquet(tmp_path / "whole.parquet", index=False)
    output = tmp_path / "expected.parquet"
    score_file(ReleaseScorer(release, threads=1), tmp_path / "whole.parquet", output, lambda _: None)
    return pd.read_parquet(output).set_index("transaction_id")


@contextmanager
def scoring(home, data, output, master):
    """Run the command, and clear the working folders that Spark leaves beside itself."""
    command = [sys.executable, "-m", "training", "score", "--engine", "spark", "--master", master]
    command += ["--data", str(data), "--output", str(output)]
    work = Path(importlib.util.find_spec("pyspark").origin).parent / "work"
    before = set(work.glob("app-*"))
    variables = {**os.environ, **home_variables(home)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=variables, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()
            for folder in set(work.glob("app-*")) - before:
                shutil.rmtree(folder, ignore_errors=True)


def score(home, data, output, master):
    with scoring(home, data, output, master) as process:
        text, errors = process.communicate(timeout=500)
    return process.returncode, text, errors


def executors(process):
    """Return the Java processes of a local cluster's executors."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if any("CoarseGrainedExecutorBackend" in word for word in child.cmdline()):
                found.append(child)
    return found


def kill_an_executor_in_mid_job(process, output):
    deadline = time.monotonic() + 400
    victims = []
    while (done := len(list((output / "_done").glob("*.json")))) < 60:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        victims = victims or executors(process)
        time.sleep(0.02)
    victims[0].send_signal(signal.SIGKILL)
    assert done < FILES * 0.8
    return victims[0]


def check_equal(output, expected, rows):
    scores = pd.read_parquet(output).set_index("transaction_id")
    assert len(scores) == rows and not scores.index.has_duplicates
    same = expected.loc[scores.index]
    for column in ("neural_net_score", "xgboost_score", "fraud_probability"):
        np.testing.assert_allclose(scores[column], same[column], rtol=0, atol=1e-9)
    assert (scores["decision"] == same["decision"]).all()


def test_killed_executor_and_a_corrupt_file_among_a_thousand(home, frame, expected, tmp_path):
    """Then the file is mended, and the same command scores it alone."""
    data, output = tmp_path / "in", tmp_path / "out"
    data.mkdir()
    for i in range(FILES):
        frame.iloc[3 * i : 3 * i + 3].to_parquet(data / f"{i:04d}.parquet", index=False)
    corrupt = data / "0700.parquet"
    whole = corrupt.read_bytes()
    corrupt.write_bytes(whole[:-40])
    with scoring(home, data, output, CLUSTER) as process:
        victim = kill_an_executor_in_mid_job(process, output)
        text, errors = process.communicate(timeout=500)
    assert not victim.is_running()
    assert process.returncode == 1, text + errors
    assert f"{corrupt}: is not a readable parquet file; is it cut off?" in text
    assert "1 of 1,000 partitions could not be scored" in errors
    assert not (output / "_SUCCESS").exists()
    check_equal(output, expected, len(frame) - 3)

    corrupt.write_bytes(whole)
    written = {path: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    code, text, errors = score(home, data, output, "local[2]")
    assert code == 0, text + errors
    assert "999 partitions were done before: 2,997 rows scored" in text
    assert {path: path.stat().st_mtime_ns for path in written} == written
    check_equal(output, expected, len(frame))
    assert (output / "_SUCCESS").exists()
    # With nothing left to do, Spark is not even started.
    assert "Start Spark" not in score(home, data, output, "local[2]")[1]


def test_bad_rows_of_every_kind_are_counted_and_written_aside(home, frame, expected, tmp_path):
    """A parquet file in several partitions and a CSV, one worker a core, each with one thread."""
    data, output = tmp_path / "in", tmp_path / "out"
    data.mkdir()
    frame.iloc[:2000].to_parquet(data / "a.parquet", index=False, row_group_size=500)
    csv = frame.iloc[2000:].astype(object)
    csv.iloc[[5, 6, 7], [3, 4, 5]] = "?"
    csv.iloc[[100, 200], 10] = [np.nan, np.inf]
    csv.to_csv(data / "b.csv", index=False)
    code, text, errors = score(home, data, output, "local[2]")
    assert code == 0, text + errors
    assert "2,995 transactions scored by release 1 on Spark" in text
    assert "5 rows were refused and not scored" in text
    check_equal(output, expected, 2995)
    aside = pd.read_parquet(output / "_refused" / next(os.walk(output / "_refused"))[2][0])
    assert aside["row"].tolist() == [6, 7, 8, 101, 201]
    assert aside["reason"][0] == "column V3, row 6: holds text, not a number"
    assert "?" not in text + errors


def test_job_that_spark_gives_up_is_one_sentence(home, frame, tmp_path):
    """The workers' Python, which a setting names, is not there: said without a traceback."""
    frame.head(3).to_csv(tmp_path / "a.csv", index=False)
    values = yaml.safe_load(DEFAULT_CONFIG.read_text())
    values["score"]["spark"]["spark.pyspark.python"] = "/nonexistent/python"
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(values))
    conf = {**home_variables(home), "TRAINING__CONFIG": str(tmp_path / "training.yaml")}
    command = [sys.executable, "-m", "training", "score", "--engine", "spark", "--master", "local[1]"]
    command += ["--data", str(tmp_path / "a.csv"), "--output", str(tmp_path / "scores")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **conf},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    assert "error: Spark ended the job: " in done.stderr
    assert "/nonexistent/python" in done.stderr
    assert "Traceback" not in done.stderr


def test_driver_whose_java_is_killed_says_so_and_keeps_what_was_finished(home, frame, expected, tmp_path):
    data, output = tmp_path / "in", tmp_path / "out"
    data.mkdir()
    for i in range(FILES):
        frame.iloc[3 * i : 3 * i + 3].to_parquet(data / f"{i:04d}.parquet", index=False)
    with scoring(home, data, output, "local[1]") as process:
        deadline = time.monotonic() + 400
        while len(list((output / "_done").glob("*.json"))) < 20:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        java = [child for child in psutil.Process(process.pid).children() if child.name() == "java"]
        java[0].send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=500)
    assert process.returncode == 1, errors
    assert "error: Spark ended the job: " in errors
    assert "Traceback" not in errors
    assert len(list((output / "_done").glob("*.json"))) >= 20


def test_without_java_the_command_says_what_is_missing(home, frame, tmp_path):
    frame.head(3).to_csv(tmp_path / "a.csv", index=False)
    command = [sys.executable, "-m", "training", "score", "--engine", "spark"]
    command += ["--data", str(tmp_path / "a.csv"), "--output", str(tmp_path / "out")]
    variables = {**os.environ, **home_variables(home), "PATH": "", "JAVA_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs Java 17" in done.stderr
