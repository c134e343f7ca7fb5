"""The real ULB set where it can be had: its public copy at OpenML, fetched once and kept.

OpenML marks Time as a row identifier, which its clients therefore drop, and stores Class as text; the
parquet file behind data id 1597 has all 31 columns. What is kept is that file with a numeric Class.
"""

import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from training.data.parquet_tables import LABEL
from training.data.simulate import ROWS, simulate
from training.data.transactions import FEATURES, Transactions, from_frame, load_transactions
from training.data.writing import write_frame
from training.errors import DataError, FetchError

URL = "https://data.openml.org/datasets/0000/1597/dataset_1597.pq"
FRAUDS = 492
NAME = "ULB set (OpenML 1597)"
CACHED = "creditcard_openml_1597.parquet"
_BLOCK_BYTES = 1 << 18
# The share of the deadline after which the speed says whether the rest can arrive in time.
PATIENCE = 0.1


def find_data(
    folder: Path,
    *,
    seed: int,
    url: str = URL,
    timeout_s: float = 5.0,
    deadline_s: float = 180.0,
    console: Console | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Transactions:
    """Return the best data there is: `folder`/creditcard.csv, else OpenML's copy, else simulated rows.

    Parameters
    ----------
    folder : Path
        Where creditcard.csv is looked for and the copy is kept.
    seed : int
        For the simulator.
    url, timeout_s, deadline_s, console
        As for ``fetch``; an empty `url` leaves the copy out.
    say : callable
        Told in a sentence that the line is slow, and why the copy could not be had.
    """
    own = folder / "creditcard.csv"
    if own.exists():
        return load_transactions(own)
    try:
        kept = fetch(folder, url=url, timeout_s=timeout_s, deadline_s=deadline_s, console=console, say=say)
        return load_transactions(kept, name=NAME)
    except FetchError as error:
        say(str(error))
    return from_frame(simulate(ROWS, seed), f"simulated transactions (seed {seed})")


def fetch(
    folder: Path,
    *,
    url: str = URL,
    timeout_s: float = 5.0,
    deadline_s: float = 180.0,
    expected: tuple[int, int] = (ROWS, FRAUDS),
    console: Console | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Return the kept copy of the ULB set, fetching it first where there is none.

    Parameters
    ----------
    folder : Path
        Made when missing; the copy appears in it whole or not at all.
    url : str
        A parquet file with the 31 columns.
    timeout_s : float
        Longest wait for an answer, name resolution included, and for each further block.
    deadline_s : float
        Longest download.
    expected : (int, int)
        Rows and frauds the file must have.
    console : Console, optional
        Where progress is shown.
    say : callable
        Told in a sentence, while it waits, that the line is too slow for the deadline.

    Raises
    ------
    FetchError
        If the server cannot be reached in time, or sends something else.
    """
    kept = folder / CACHED
    if kept.is_file():
        return kept
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError("the public copy of the ULB set was not fetched: no http address is set for it")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        download = Path(scratch) / "download.parquet"
        try:
            _download(url, download, timeout_s, deadline_s, console, say)
        except (OSError, HTTPException) as error:
            raise FetchError(
                f"{url} could not be fetched ({_reason(error)}): give a data file instead"
            ) from error
        write_frame(_check(download, url, expected), kept)
    return kept


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _download(
    url: str,
    path: Path,
    timeout_s: float,
    deadline_s: float,
    console: Console | None,
    say: Callable[[str], None],
) -> None:
    began, is_told = time.monotonic(), False
    with _answer_within(timeout_s, url) as answer, path.open("wb") as file, _progress(console) as progress:
        total = int(answer.headers.get("Content-Length") or 0) or None
        task = progress.add_task(NAME, total=total)
        # What has arrived, not a full block: on a slow line that would be minutes without a sign.
        while block := answer.read1(_BLOCK_BYTES):
            file.write(block)
            progress.advance(task, len(block))
            elapsed = time.monotonic() - began
            if elapsed > deadline_s:
                raise TimeoutError(f"not done after {deadline_s:g} s; set TRAINING__FETCH__DEADLINE_S higher")
            needed = elapsed * total / file.tell() if total else 0.0
            if not is_told and elapsed > deadline_s * PATIENCE and needed > deadline_s:
                is_told = True
                say(_slow(file.tell(), total or 0, needed, deadline_s))
        received = file.tell()
    if total and received != total:
        raise ConnectionError(f"the connection ended after {received:,} of {total:,} bytes")


def _slow(received: int, total: int, needed_s: float, deadline_s: float) -> str:
    return (
        f"{NAME}: the line is slow, {received / total:.0%} has arrived; all of it needs about "
        f"{needed_s:.0f} s and {deadline_s:g} s are allowed. TRAINING__FETCH__DEADLINE_S allows more; "
        "--data names a file instead."
    )


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console or Console(stderr=True), disable=console is None)


@contextmanager
def _answer_within(timeout_s: float, url: str) -> Iterator[HTTPResponse]:
    """Open `url`, giving up after `timeout_s` even where resolving its name would hang for longer."""
    outcome: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            answer = urllib.request.urlopen(url, timeout=timeout_s)  # noqa: S310 - fetch checked the scheme
        except Exception as error:
            outcome.put(error)
            return
        if given_up.is_set():
            answer.close()
        else:
            outcome.put(answer)

    threading.Thread(target=ask, name="fetch", daemon=True).start()
    try:
        answer = outcome.get(timeout=timeout_s)
    except queue.Empty:
        given_up.set()
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
    if isinstance(answer, Exception):
        raise answer
    with answer:
        yield answer


def _check(path: Path, url: str, expected: tuple[int, int]) -> pd.DataFrame:
    """Return the file as a data frame with a numeric Class, or raise FetchError when it is something else."""
    try:
        frame = pd.read_parquet(path)[[*FEATURES, LABEL]]
        frame[LABEL] = frame[LABEL].astype(str).astype(np.float64).astype(np.int8)
        data = from_frame(frame, NAME)
    except (OSError, KeyError, ValueError, DataError) as error:
        raise FetchError(f"{url} did not send the ULB set as parquet: give a data file instead") from error
    found = (len(data), data.frauds)
    if found != expected:
        raise FetchError(
            f"{url} sent {found[0]:,} rows with {found[1]:,} frauds instead of {expected[0]:,} with "
            f"{expected[1]:,}: give a data file instead"
        )
    return frame
