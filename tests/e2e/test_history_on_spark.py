"""The history of a topic on Spark: `streaming export`, then `training score`, says what `backfill` says."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import ROOT, home_variables
from tests.e2e.faults import World, read_topic
from tests.training_fixtures import NEEDS_SPARK

pytestmark = [*NEEDS_SPARK, pytest.mark.timeout(600)]
ROWS = 1000


def test_export_scored_on_spark_is_comparable_with_backfill(
    world_of_any_broker: World, served_bento: str, release_home: Path, tmp_path: Path
) -> None:
    world, data = world_of_any_broker, str(release_home / "held_out.parquet")
    _run(world, release_home, "streaming", "replay", "--data", data, "--rate", "0", "--limit", str(ROWS))
    _run(world, release_home, "streaming", "label", "--data", data, "--limit", str(ROWS))
    classify_url = f"{served_bento}/classify"
    world.start_bridge("a", SERVICE__CLASSIFY_URL=classify_url)
    world.wait_drained(90)
    world.bridges["a"].stop()

    again = f"{world.output}-again"
    topics = ("--output-topic", again, "--compare-topic", world.output)
    _run(world, release_home, "streaming", "backfill", *topics, "--classify-url", classify_url)
    exported, scores = str(tmp_path / "history.parquet"), str(tmp_path / "scores")
    topics = ("--decisions-topic", world.output, "--labels-topic", f"{world.input}.labels")
    _run(world, release_home, "streaming", "export", "--output", exported, *topics)
    engine = ("--engine", "spark", "--master", "local[2]")
    _run(world, release_home, "training", "score", *engine, "--data", exported, "--output", scores)

    scored = pd.read_parquet(scores).set_index("transaction_id")
    decided = {one["transaction_id"]: one for one in _decisions(world, again)}
    assert len(scored) == len(decided) == ROWS
    assert {one["decision"] for one in decided.values()} >= {"approve", "review"}
    for name, row in scored.iterrows():
        one = decided[name]
        assert (row["decision"], row["is_fraud"]) == (one["decision"], one["is_fraud"])
        assert row["raised_by"] == ";".join(one["raised_by"])
        assert row["fraud_probability"] == pytest.approx(one["fraud_probability"], abs=1e-6)
        for model in ("neural_net", "xgboost"):
            assert row[f"{model}_score"] == pytest.approx(one["scores"][model], abs=1e-6)


def _run(world: World, home: Path, package: str, *arguments: str) -> None:
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": world.servers,
        "STREAMING__TOPICS__INPUT": world.input,
        "STREAMING__TOPICS__LABELS": f"{world.input}.labels",
        "STREAMING__TOPICS__LABELS_DEAD_LETTER": f"{world.input}.labels-dead",
    }
    done = subprocess.run(
        [sys.executable, "-m", package, *arguments],
        cwd=ROOT,
        env={**os.environ, **home_variables(home), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _decisions(world: World, topic: str) -> list[dict[str, Any]]:
    return [json.loads(seen.value or b"") for seen in read_topic(world.servers, topic)]
