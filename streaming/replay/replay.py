"""Sends recorded or simulated transactions to a topic, at a rate or flat out."""

import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from streaming.errors import DataError
from streaming.replay.data_files import Transaction, read_transactions
from streaming.replay.rate_limiter import RateLimiter

SIMULATOR = "simulator"


class RecordSender(Protocol):
    """Where transactions go: `broker.idempotent_producer.IdempotentProducer`, or a list in tests."""

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Hand one record over."""

    def flush(self) -> None:
        """Wait until everything is acknowledged."""


@dataclass(frozen=True)
class Replayed:
    """What a replay did."""

    transactions: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Transactions per second."""
        return self.transactions / self.seconds if self.seconds else 0.0


def replay(  # what, where to, how fast, and who is told
    transactions: Iterable[Transaction],
    sender: RecordSender,
    topic: str,
    limiter: RateLimiter,
    report: Callable[[int], None] = lambda sent: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Replayed:
    """Send transactions at the limiter's rate until they end.

    Parameters
    ----------
    transactions : iterable of (key, value)
    sender : RecordSender
    topic : str
    limiter : RateLimiter
    report : callable
        Called with the number sent after each chunk.
    is_stopped : callable
        Whether to end before the transactions do.

    Returns
    -------
    Replayed
        Once the broker has acknowledged all.
    """
    rows = iter(transactions)
    begun = time.perf_counter()
    sent = 0
    while not is_stopped():
        chunk = list(itertools.islice(rows, limiter.next_chunk()))
        if not chunk:
            break
        for key, value in chunk:
            sender.send(topic, key, value)
        sent += len(chunk)
        report(sent)
    sender.flush()
    return Replayed(sent, time.perf_counter() - begun)


def repeated(path: Path, is_looping: bool, limit: int | None) -> Iterator[Transaction]:
    """Yield the rows of a file once or for ever, but no more than `limit`.

    Raises
    ------
    DataError
        While iterating: if the file cannot be read, or would be looped through for ever without a row.
    """
    return itertools.islice(_endless(path) if is_looping else read_transactions(path), limit)


def _endless(path: Path) -> Iterator[Transaction]:
    while True:
        is_empty = True
        for transaction in read_transactions(path):
            is_empty = False
            yield transaction
        if is_empty:
            raise DataError(f"{path} has no rows.")


@contextmanager
def data_file(data: str, rows: int) -> Iterator[Path]:
    """Give the file to replay; for ``"simulator"`` one that is simulated now and removed afterwards.

    Raises
    ------
    DataError
        If the simulator is not installed or fails.
    """
    if data != SIMULATOR:
        yield Path(data)
        return
    folder = Path(tempfile.mkdtemp(prefix="replay-"))
    try:
        yield _simulate(folder / "simulated.parquet", rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _simulate(path: Path, rows: int) -> Path:
    command = [sys.executable, "-m", "training", "simulate", "--rows", str(rows), "--output", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # our own command
    if done.returncode == 0 and path.is_file():
        return path
    if "No module named" in done.stderr:
        raise DataError(
            "The simulator belongs to the package `training`, which is not installed here: "
            "install the group `training`, or give a file to --data."
        )
    reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
    raise DataError(f"The simulator failed: {reason[0]}")
