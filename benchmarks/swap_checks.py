"""Checks answers and decisions of `benchmarks.swap` against offline scoring by the release they name."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.serving import ROOT
from benchmarks.serving_original import FEATURES
from benchmarks.streaming_rig import Rig, read_all, source_of

TOLERANCE = 1e-6
MODELS = {"neural_net": "fraud_neural_net", "xgboost": "fraud_xgboost"}
CHECKED_ROWS = 2000
CHECK_CONNECTIONS = 4
LIST_ROWS = 500


@dataclass
class Expected:
    """What each release scores the transactions with, without a service."""

    releases: tuple[str, str]
    rows: list[dict[str, Any]]
    scores: dict[str, NDArray[np.float64]]
    """Release to [rows, 2]: network, trees."""


def expect(folder: Path) -> Expected:
    """Return the offline scores of some transactions by releases 1 and 2, made by ``training score``."""
    data = folder / "checked.csv"
    frame = pd.read_parquet(folder / "training.parquet").head(CHECKED_ROWS)
    frame.to_csv(data, index=False)
    rows = json.loads(frame[list(FEATURES)].to_json(orient="records", double_precision=15))
    return Expected(("1", "2"), rows, {number: score_offline(folder, data, number) for number in ("1", "2")})


def score_offline(folder: Path, data: Path, release: str) -> NDArray[np.float64]:
    """Return network's and trees' scores of a file [rows, 2] by a release."""
    output = data.with_suffix(f".{release}.parquet")
    command = [sys.executable, "-m", "training", "score", "--data", str(data), "--output", str(output)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    subprocess.run(
        [*command, "--release", release], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    scored = pd.read_parquet(output)
    return scored[["neural_net_score", "xgboost_score"]].to_numpy(np.float64)


def pair_text(release: str) -> str:
    """Return what an answer by a release, whole, contains."""
    models = ",".join(f'"{model}":"{name}:{release}"' for model, name in MODELS.items())
    return f'"release":"{release}","models":{{{models}}}'


def bodies_of(expected: Expected, count: int = 64) -> list[bytes]:
    """Return bodies of one transaction each."""
    return [json.dumps(row).encode() for row in expected.rows[:count]]


def wrong_rows(expected: Expected, decisions: list[dict[str, Any]], first: int) -> tuple[int, int]:
    """Return how many decisions are of no one release, and how many scores are off."""
    releases = {row["release"] for row in decisions}
    tags = {tuple(row["models"].values()) for row in decisions}
    release = next(iter(releases))
    if len(releases) > 1 or tags != {tuple(f"{name}:{release}" for name in MODELS.values())}:
        return 1, 0
    scores = np.array([[row["scores"][model] for model in MODELS] for row in decisions])
    difference = np.abs(scores - expected.scores[release][first : first + len(decisions)])
    return 0, int((~(difference <= TOLERANCE)).sum())


class Checker:
    """Asks all the time over a few connections of its own, lists and single ones, and checks each answer."""

    def __init__(self, url: str, expected: Expected) -> None:
        self._url, self._expected = url, expected
        self._is_over = False
        self._counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    def totals(self) -> dict[str, int]:
        """Return answers, failed, mixed, scores and off."""
        return {name: self._counts[name] for name in ("answers", "failed", "mixed", "scores", "off")}

    async def _run(self) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            await asyncio.gather(*(self._ask(client, number) for number in range(CHECK_CONNECTIONS)))

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        length = 1 if number else LIST_ROWS
        first = number * 7
        while not self._is_over:
            first = (first + length) % (len(self._expected.rows) - length)
            rows = self._expected.rows[first : first + length]
            answer = await client.post(self._url, json=rows)
            self._counts["answers"] += 1
            if answer.status_code != 200:
                self._counts["failed"] += 1
                continue
            mixed, off = wrong_rows(self._expected, answer.json(), first)
            self._counts.update(mixed=mixed, off=off, scores=2 * length)
            await asyncio.sleep(0.02)


def check_decisions(rig: Rig, topic: str, expected: Expected) -> dict[str, int]:
    """Return how many decisions a bridge wrote, and how many of them no release gives."""
    sent = {
        (record.partition, record.offset): json.loads(record.value)
        for record in read_all(rig.servers, f"{topic}.in")
    }
    offline = score_stream(rig.folder, pd.DataFrame(sent.values()))
    places = {source: row for row, source in enumerate(sent)}
    counts: Counter[str] = Counter()
    for record in read_all(rig.servers, f"{topic}.out"):
        decision = json.loads(record.value)
        release, row = decision["release"], places[source_of(record.value)]
        scores = np.array([decision["scores"][model] for model in MODELS])
        is_whole = tuple(decision["models"].values()) == tuple(
            f"{name}:{release}" for name in MODELS.values()
        )
        is_right = is_whole and bool((np.abs(scores - offline[release][row]) <= TOLERANCE).all())
        counts.update(decisions=1, wrong=int(not is_right), **{f"by release {release}": 1})
    return {"wrong": 0, "sent": len(sent), **counts}


def score_stream(folder: Path, frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return both releases' scores of what went through the stream."""
    data = folder / "stream.parquet"
    frame[list(FEATURES)].to_parquet(data, index=False)
    return {release: score_offline(folder.parent, data, release) for release in ("1", "2")}
