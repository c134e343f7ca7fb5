"""Which transactions a command works on, and what each row stands for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.console import ProgressConsole
from training.data.split import split_by_protocol, split_key
from training.data.transactions import Transactions, load_transactions
from training.data.writing import replace_when_done, translate_write_errors
from training.errors import SettingsError
from training.settings.load import Settings

# Where creditcard.csv is looked for and the public copy is kept, in the folder the command runs in.
DATA_FOLDER = Path("data")
HELD_OUT_KEY = b"training.held_out"


def read_data(settings: Settings, console: ProgressConsole) -> Transactions:
    """Return the transactions the settings name, or the best there are."""
    if settings.data is None:
        return apply_genuine_weight(_find_data(settings, console), settings.genuine_weight)
    with console.step("Read the transactions") as report:
        data = load_transactions(settings.data, limits=settings.limits)
        weight = _genuine_weight(data, settings)
        data = apply_genuine_weight(data, weight)
        stands = f", each genuine row stands for {weight:g}" if weight != 1 else ""
        report(f"{data.name}: {len(data):,} rows, {data.frauds} frauds ({data.prevalence:.3%}){stands}")
    return data


def _find_data(settings: Settings, console: ProgressConsole) -> Transactions:
    from training.data.openml import find_data

    progress = console.rich if console.rich.is_terminal else None
    data = find_data(
        DATA_FOLDER,
        seed=settings.seed,
        timeout_s=settings.fetch.timeout_s,
        deadline_s=settings.fetch.deadline_s,
        console=progress,
        say=console.rich.print,
    )
    console.rich.print(f"no file was named: {data.name}, {len(data):,} rows, {data.frauds} frauds")
    return data


def _genuine_weight(data: Transactions, settings: Settings) -> float:
    """Return the weight that was set, or the one known for exactly this file."""
    if settings.genuine_weight != 1.0 or settings.data is None or (data.sample_weight != 1.0).any():
        return settings.genuine_weight
    with settings.data.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return settings.known_samples.get(digest, 1.0)


def apply_genuine_weight(data: Transactions, genuine_weight: float) -> Transactions:
    """Let each genuine row stand for `genuine_weight` transactions where the file gives no weights."""
    if genuine_weight == 1.0:
        return data
    if (data.sample_weight != 1.0).any():
        raise SettingsError(f"{data.name} has a sample_weight of its own: leave genuine_weight at 1")
    weight = np.where(data.required_label == 0, genuine_weight, 1.0)
    fingerprint = hashlib.sha256(f"{data.fingerprint} {genuine_weight!r}".encode()).hexdigest()
    return replace(data, sample_weight=weight, fingerprint=fingerprint)


def write_held_out(data: Transactions, settings: Settings, path: Path) -> None:
    """Write the test part in order of Time to a parquet file, unless the file is this part already."""
    key = f"{data.fingerprint} {split_key(settings)}".encode()
    if path.suffix.lower() != ".parquet":
        raise SettingsError(f"{path}: the held-out part is written as .parquet")
    if path.is_file() and _held_out_key(path) == key:
        return
    test = split_by_protocol(data, settings).test
    test = test[data.time[test].argsort(kind="stable")]
    table = pa.Table.from_pandas(data.to_frame(test), preserve_index=False)
    with replace_when_done(path) as part, translate_write_errors(path):
        pq.write_table(table.replace_schema_metadata({HELD_OUT_KEY: key}), part)


def _held_out_key(path: Path) -> bytes | None:
    try:
        return (pq.read_schema(path).metadata or {}).get(HELD_OUT_KEY)
    except (pa.ArrowException, OSError):
        return None
