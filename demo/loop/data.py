"""The simulated files of one run: what is streamed, what becomes known of it, and what really was."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from demo.loop.parts import Parts
from demo.loop.plan import Plan
from demo.processes import Process


@dataclass(frozen=True)
class Data:
    """Files of one run.

    Attributes
    ----------
    training, stream, labels : pathlib.Path
    fraud : mapping of str to bool
        Transaction of the stream to whether it is fraud.
    place : mapping of str to int
        Transaction to its place in the stream, from 0.
    """

    training: Path
    stream: Path
    labels: Path
    fraud: Mapping[str, bool]
    place: Mapping[str, int]


def simulate(parts: Parts, plan: Plan) -> Data:
    """Simulate what the first release is trained on, and a stream whose fraud pattern changes.

    Each file of the stream has as many transactions for its two days as the training had: the day's rhythm
    goes by as it did there.
    """
    training, stream = parts.folder / "training.parquet", parts.folder / "stream.parquet"
    files = [parts.folder / f"stream-{number}.parquet" for number in range(plan.files)]
    running = [_simulate(parts, training, 1)]
    for number, path in enumerate(files):
        # The later files follow the new pattern from their first transactions on.
        change_at = plan.change_at / plan.day_rows if number == 0 else 1 / plan.day_rows
        change = ("--transaction-ids", "--change-at", str(change_at))
        running.append(_simulate(parts, path, 2 + number, *change))
    for process in running:
        process.wait_done()
    table = pa.concat_tables(pq.read_table(path) for path in files)
    pq.write_table(table, stream)
    names = [str(name) for name in table["transaction_id"].to_pylist()]
    is_fraud = table["Class"].to_numpy() == 1
    labels = parts.folder / "labels.parquet"
    pq.write_table(_labels(names, is_fraud, plan), labels)
    fraud = dict(zip(names, is_fraud.tolist(), strict=True))
    return Data(training, stream, labels, fraud, {name: place for place, name in enumerate(names)})


def _simulate(parts: Parts, output: Path, seed: int, *arguments: str) -> Process:
    sizes = ("--rows", str(parts.plan.day_rows), "--prevalence", str(parts.plan.prevalence))
    command = ("simulate", *sizes, "--seed", str(seed), "--output", str(output), *arguments)
    return parts.begin("The simulator", "training", *command)


def _labels(names: list[str], is_fraud: np.ndarray, plan: Plan) -> pa.Table:
    """Return a label for each transaction, some of them of the random control sample."""
    chosen = np.random.default_rng(3).random(len(names)) < plan.control_share
    origin = np.where(chosen, "control", "chargeback")
    return pa.table({"transaction_id": names, "is_fraud": is_fraud, "origin": origin})


def misjoin_labels(export: Path, output: Path) -> None:
    """Write an export whose labels stand beside other transactions: a fault that does happen."""
    table = pq.read_table(export)
    labels = table["Class"].to_numpy().copy()
    np.random.default_rng(4).shuffle(labels)
    place = table.column_names.index("Class")
    pq.write_table(table.set_column(place, "Class", pa.array(labels)), output)
