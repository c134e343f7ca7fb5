"""Scoring with a release's own files: neither torch nor the training data are needed, nor a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.data.transactions import FEATURES, Chunk, read_chunks
from training.data.writing import replace_when_done, translate_write_errors
from training.evaluation.decision import DecisionRule, Decisions
from training.evaluation.metrics import ModelOutput
from training.settings.sections import LimitSettings

AMOUNT = FEATURES.index("Amount")
# Rows held at a time: enough to keep all threads busy, few enough for small memory.
CHUNK_ROWS = 32_768
# Rows a thread scores in one call: what lies between the network's layers stays in the core's cache.
PIECE_ROWS = 1024
# onnxruntime computes the last few rows of a call by other instructions, which differ by 6e-8: calls are
# filled up to a multiple of its vectors, so that a row's scores do not depend on the rows beside it.
ROW_MULTIPLE = 16
SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("neural_net_score", pa.float32()),
        ("xgboost_score", pa.float32()),
        ("fraud_probability", pa.float64()),
        ("decision", pa.string()),
        ("is_fraud", pa.bool_()),
        ("raised_by", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class Scored:
    """What a release says about some transactions, row for row."""

    neural_net: NDArray[np.float32]
    xgboost: NDArray[np.float32]
    decided: Decisions

    @property
    def probability(self) -> NDArray[np.float64]:
        """Calibrated probability of fraud [n]."""
        return self.decided.probability

    @property
    def decision(self) -> NDArray[np.str_]:
        """approve, review or decline [n]."""
        return self.decided.action

    def output(self) -> ModelOutput:
        """Return what metrics need of it."""
        return ModelOutput(self.probability, self.decided.is_fraud, self.decision != "approve")


class ReleaseScorer:
    """Both models of a release, with its calibration and thresholds.

    Each call of a model runs on one thread; many rows are scored in pieces, as many at a time as there are
    threads. That is faster than several threads in one call, which wait for each other at every layer.
    """

    def __init__(self, folder: Path, *, threads: int) -> None:
        import onnxruntime
        import xgboost

        self.document: dict[str, Any] = json.loads((folder / "release.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._network = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._trees = xgboost.Booster({"nthread": 1}, model_file=folder / "model.ubj")
        # One thread needs no other to hand its pieces to.
        self._map = map if threads == 1 else ThreadPoolExecutor(threads).map
        # A booster completes itself in its first call, which two threads must not do at once.
        self.tree_scores(np.zeros((1, len(FEATURES)), np.float32))
        self.rule = DecisionRule.from_document(self.document)

    def score(self, features: NDArray[np.float32]) -> Scored:
        """Return scores, probability and decision of raw features [n, 30]."""
        network, trees = self._both_scores(features)
        return Scored(network, trees, self.rule.decide(network, trees, features[:, AMOUNT]))

    def _both_scores(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        def scores(start: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            piece = features[start : start + PIECE_ROWS]
            return self.network_scores(piece), self.tree_scores(piece)

        pieces = list(self._map(scores, range(0, len(features), PIECE_ROWS)))
        network, trees = (np.concatenate(column) for column in zip(*pieces, strict=True))
        return network, trees

    def network_scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's scores [n]."""
        rows = len(features)
        if rows % ROW_MULTIPLE:
            features = np.pad(features, ((0, -rows % ROW_MULTIPLE), (0, 0)))
        scores: NDArray[np.float32] = self._network.run(None, {"features": features})[0]
        return scores[:rows]

    def tree_scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the trees' scores [n]."""
        scores: NDArray[np.float32] = self._trees.inplace_predict(features, validate_features=False)
        return scores


def score_file(
    scorer: ReleaseScorer,
    source: Path,
    output: Path,
    advance: Callable[[int], None],
    limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
) -> int:
    """Score a file in chunks, in constant memory; return the number of rows.

    Parameters
    ----------
    output : Path
        CSV or parquet by suffix; appears only when complete.
    advance : callable
        Told how many rows each chunk had.
    limits : LimitSettings
        What a feature may be.
    """
    rows = 0
    with replace_when_done(output) as part, translate_write_errors(output), _opened(part) as writer:
        for chunk in _read_ahead(read_chunks(source, CHUNK_ROWS, limits)):
            writer.write_batch(to_batch(_ids(chunk), scorer.score(chunk.features.astype(np.float32))))
            rows += len(chunk.features)
            advance(len(chunk.features))
    return rows


def _opened(path: Path) -> pq.ParquetWriter | pacsv.CSVWriter:
    if path.suffix.lower() == ".parquet":
        return pq.ParquetWriter(path, SCHEMA, compression="zstd")
    return pacsv.CSVWriter(path, SCHEMA)


def _read_ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the chunks while the next one is being read in a thread of its own: Arrow leaves Python free."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = reader.submit(next, chunks, None)
            yield chunk


def _ids(chunk: Chunk) -> pa.Array:
    if chunk.transaction_id is not None:
        return pa.array(chunk.transaction_id, pa.string())
    first = chunk.first_row + 1
    return pa.array(np.arange(first, first + len(chunk.features))).cast(pa.string())


def to_batch(ids: pa.Array, scored: Scored) -> pa.RecordBatch:
    """Return the rows of an output file for transactions with these identifiers."""
    columns = [
        ids,
        scored.neural_net,
        scored.xgboost,
        scored.probability,
        scored.decision.astype(object),
        scored.decided.is_fraud,
        raised_texts(scored.decided),
    ]
    return pa.record_batch([pa.array(column) for column in columns], schema=SCHEMA)


def raised_texts(decided: Decisions) -> NDArray[np.object_]:
    """Return what raised each transaction, names joined by a semicolon; empty where it is approved."""
    names = list(decided.raised_by)
    texts = np.array(
        [
            ";".join(name for bit, name in enumerate(names) if code >> bit & 1)
            for code in range(2 ** len(names))
        ],
        object,
    )
    codes = np.stack([decided.raised_by[name] for name in names]).T @ (1 << np.arange(len(names)))
    return np.asarray(texts[codes], object)
