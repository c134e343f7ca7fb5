"""The way of Spark that `score --engine spark` does not go: Spark reads the rows and hands them to Python.

    python -m benchmarks.score_in_rows mapInArrow local[2] DATA.parquet OUTPUT

One release a worker process and one thread a task, as there; only who reads and writes the rows differs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from training.data.transactions import FEATURES
from training.registry.releases import Registry
from training.scoring.scorer import SCHEMA, to_batch
from training.scoring.spark import RELEASE_ARCHIVE, load_release, pack_files
from training.settings.load import load_settings

WAYS = ("mapInPandas", "mapInArrow")
COLUMNS = "transaction_id string, neural_net_score float, xgboost_score float, fraud_probability double, "
COLUMNS += "decision string, is_fraud boolean, raised_by string"


def score_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Score what Spark hands over as Arrow batches."""
    from pyspark import SparkFiles

    scorer = load_release(SparkFiles.get(RELEASE_ARCHIVE))
    for batch in batches:
        features = np.empty((batch.num_rows, len(FEATURES)), np.float32)
        for j, name in enumerate(FEATURES):
            features[:, j] = batch.column(name).to_numpy(zero_copy_only=False)
        ids = pa.array(np.arange(batch.num_rows)).cast(pa.string())
        yield to_batch(ids, scorer.score(features))


def score_frames(frames: Iterator[Any]) -> Iterator[Any]:
    """Score what Spark hands over as data frames."""
    for frame in frames:
        batch = pa.RecordBatch.from_pandas(frame[list(FEATURES)], preserve_index=False)
        for scored in score_batches(iter([batch])):
            yield scored.to_pandas()


def main(arguments: Sequence[str]) -> None:
    """Score a file and say how fast that was once Spark had started."""
    way, master, data, output = arguments
    from pyspark.sql import SparkSession

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        registry = Registry(load_settings().tracking_uri)
        fetched = Path(folder, "release")
        fetched.mkdir()
        release = registry.fetch(registry.require_champion(), fetched)
        settings = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.executorEnv.OMP_NUM_THREADS": "1",
            # As many rows at a time as a task of `score --engine spark` reads.
            "spark.sql.execution.arrow.maxRecordsPerBatch": "32768",
        }
        builder = SparkSession.builder.master(master).config(map=settings)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        session.sparkContext.addFile(pack_files(Path(folder, RELEASE_ARCHIVE), release, release.iterdir()))
        print(f"Start Spark {master} {time.perf_counter() - begun:.1f} s", flush=True)
        begun = time.perf_counter()
        rows = session.read.parquet(data).select(*FEATURES)
        scored = getattr(rows, way)(score_batches if way == "mapInArrow" else score_frames, COLUMNS)
        scored.write.mode("overwrite").parquet(output)
        seconds = time.perf_counter() - begun
        count = session.read.parquet(output).count()
        session.stop()
    print(f"{count:,} transactions scored by {way} in {seconds:.1f} s ({count / seconds:,.0f}/s): {output}")


assert len(COLUMNS.split(", ")) == len(SCHEMA)

if __name__ == "__main__":
    main(sys.argv[1:])
