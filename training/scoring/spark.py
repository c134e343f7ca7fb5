"""Scoring on Apache Spark: a task for each large partition or some small ones, in the executors' processes.

Spark places, retries and moves the tasks; it does not carry the rows. A task reads its file, scores it and
writes its scores itself, with the code that scores a single file without Spark. Rows that Spark reads
and hands to Python (``mapInPandas``, ``mapInArrow``) took 1.8 to 2 times as long (``benchmarks.score
--in-rows``), and Spark's own readers have other rules about what a number or a bad row is.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import training
from training.errors import SparkError, UsageError
from training.scoring.partition_task import PartitionResult, ScoreJob, score_partition
from training.scoring.partitions import Partition
from training.scoring.scorer import ReleaseScorer

if TYPE_CHECKING:
    from pyspark import Accumulator, SparkContext

RELEASE_ARCHIVE = "fraud-release.zip"
# What a task's process finds set before any library loads: a task has one core.
WORKER_VARIABLES = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MALLOC_ARENA_MAX": "2"}
POLL_S = 0.2


def check_spark() -> None:
    """Raise UsageError unless pyspark and Java are installed here."""
    if importlib.util.find_spec("pyspark") is None:
        raise UsageError("--engine spark needs pyspark: pip install -c constraints.txt '.[spark]'")
    java_home = os.environ.get("JAVA_HOME")
    java = Path(java_home, "bin", "java") if java_home else shutil.which("java")
    if java is None or not Path(java).exists():
        raise UsageError("--engine spark needs Java 17 or newer: install it, or set JAVA_HOME to where it is")


def start_spark(master: str | None, conf: Mapping[str, str]) -> SparkContext:
    """Return a Spark application; `conf` wins over spark-defaults.conf, and the caller stops it.

    Raises
    ------
    SparkError
        If the master does not answer, or Java ends.
    """
    check_spark()
    with warnings.catch_warnings(), _translate_spark_errors():
        # No row passes through Spark's bridge to pandas.
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        context = _open_context(master, conf)
    context.setLogLevel("ERROR")
    return context


def _open_context(master: str | None, conf: Mapping[str, str]) -> SparkContext:
    from pyspark import SparkConf, SparkContext

    if python := conf.get("spark.pyspark.python"):
        # spark-submit reads the setting; an application that is started otherwise, only the variable.
        os.environ["PYSPARK_PYTHON"] = python
    if (master or "local").startswith("local"):
        # Neither driver nor executors of a local master have anything to say to other machines.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = SparkConf().setAppName("fraud-detection score")
    for name, value in WORKER_VARIABLES.items():
        settings.set(f"spark.executorEnv.{name}", value)
    if master is not None:
        settings.setMaster(master)
    for name, value in conf.items():
        settings.set(name, value)
    return SparkContext(conf=settings)


def stop_spark(context: SparkContext) -> None:
    """End the application; where its Java is gone, there is nothing left to end."""
    from py4j.protocol import Py4JError

    with contextlib.suppress(Py4JError, OSError):
        context.stop()


def score_on_spark(
    context: SparkContext,
    job: ScoreJob,
    tasks: Sequence[Sequence[Partition]],
    release_folder: Path,
    advance: Callable[[int], None],
) -> list[PartitionResult]:
    """Score the partitions of each task; return what became of each.

    Parameters
    ----------
    release_folder : Path
        The release's files; sent to each executor once, as is this package's code.
    advance : callable
        Told how many partitions have been done since it was last told.

    Raises
    ------
    SparkError
        If Spark gives up. What was finished until then stays.
    """
    with tempfile.TemporaryDirectory() as folder, _translate_spark_errors():
        package = Path(training.__file__).parent
        context.addPyFile(pack_files(Path(folder, "training.zip"), package.parent, package.rglob("*.py")))
        context.addFile(pack_files(Path(folder, RELEASE_ARCHIVE), release_folder, release_folder.iterdir()))
        done = context.accumulator(0)
        # As many slices as tasks: each is started, retried and moved by itself.
        scored = context.parallelize(tasks, len(tasks)).flatMap(_Task(job, done))
        return _collect(context, scored.collect, done, advance)


@dataclass(frozen=True)
class _Task:
    job: ScoreJob
    done: Accumulator[int]

    def __call__(self, partitions: Sequence[Partition]) -> Iterator[PartitionResult]:
        from pyspark import SparkFiles, TaskContext

        scorer = load_release(SparkFiles.get(RELEASE_ARCHIVE))
        again = TaskContext.get()
        is_retry = again is not None and again.attemptNumber() > 0
        for partition in partitions:
            yield self._score(scorer, partition, is_retry=is_retry)
            self.done.add(1)

    def _score(self, scorer: ReleaseScorer, partition: Partition, *, is_retry: bool) -> PartitionResult:
        job = self.job
        # An attempt before this one may have come as far.
        record = job.output.done_record(partition) if is_retry else None
        if record is not None:
            return PartitionResult(partition, record.rows, record.refused)
        return score_partition(scorer, partition, job)


@cache
def load_release(archive: str) -> ReleaseScorer:
    """Load the release once a process: Spark keeps one for each core and gives it one task at a time."""
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as files:
        files.extractall(folder)
        return ReleaseScorer(Path(folder), threads=1)


def _collect(
    context: SparkContext,
    collect: Callable[[], list[PartitionResult]],
    done: Accumulator[int],
    advance: Callable[[int], None],
) -> list[PartitionResult]:
    """Run the job in a thread, so that this one can show progress and be interrupted."""
    outcome: list[list[PartitionResult] | BaseException] = []

    def run() -> None:
        try:
            outcome.append(collect())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="spark-job", daemon=True)
    thread.start()
    told = 0
    try:
        while thread.is_alive():
            thread.join(POLL_S)
            value = int(done.value)
            advance(value - told)
            told = value
    except BaseException:
        with contextlib.suppress(Exception):  # what was raised says more
            context.cancelAllJobs()
        raise
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def pack_files(archive: Path, root: Path, paths: Iterable[Path]) -> str:
    """Pack files: of a release, or of this package, so that executors need only the libraries."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for path in sorted(paths):
            files.write(path, path.relative_to(root))
    return str(archive)


def release_identity(folder: Path) -> str:
    """Return a digest of all files of a release."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _translate_spark_errors() -> Iterator[None]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JError, PySparkException, ConnectionError) as error:
        raise SparkError(
            f"Spark ended the job: {_reason(str(error))}; what was finished stays, "
            "and the same command goes on with the rest"
        ) from error


def _reason(text: str) -> str:
    """Return the line that names the cause among a page of Java and Python frames."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if not line.startswith(("at ", "File ", "Traceback", "...", "^"))]
    errors = [line for line in named if "Error" in line.split(":")[0] or "Exception" in line.split(":")[0]]
    return (errors or named or ["no reason was given"])[-1][:300]
