"""Runs `export`: reads labels, decisions and transactions, and writes what is known of them."""

import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streaming.broker.range_reader import Offsets, RangeReader
from streaming.commands.progress_bar import show_count
from streaming.commands.topics import find_topic
from streaming.errors import DataError, SettingsError
from streaming.labels.export import Exported, collect, export
from streaming.labels.known_labels import KnownLabels
from streaming.labels.strata import STRATA
from streaming.settings.load import Settings

DAY_MS = 24 * 3600 * 1000


def run_export(settings: Settings) -> None:
    """Write the labelled transactions of a range, and print what they rest on.

    Raises
    ------
    StreamingError
        When a bound or topic is wrong, the broker fails, or nothing is known.
    """
    output = settings.export.output
    if output is None:
        raise SettingsError("--output is missing: name a parquet file.")
    if output.is_dir() or not output.parent.is_dir():
        raise DataError(f"{output} cannot be written: --output wants a file in a folder that exists.")
    for name in (settings.topics.input, settings.topics.output, settings.topics.labels):
        find_topic(settings, name)
    with tempfile.TemporaryDirectory(prefix="export-", dir=output.parent) as folder:
        result = _export(settings, Path(folder) / "known.sqlite", output)
    _print(result, output)


def _export(settings: Settings, database: Path, output: Path) -> Exported:
    names, options = settings.topics, settings.export
    result = Exported()
    with RangeReader(settings.kafka) as reader, KnownLabels(database) as known:
        starts, ends = (reader.resolve(names.input, bound) for bound in (options.begin, options.end))

        def is_wanted(topic: str, partition: int, offset: int) -> bool:
            return topic == names.input and starts.get(partition, 0) <= offset < ends.get(partition, 0)

        labels = reader.read(names.labels, *_whole(reader, names.labels))
        decisions = reader.read(names.output, *_whole(reader, names.output))
        collect(known, labels, decisions, is_wanted, result.rejected_labels)
        mature_before_ms = time.time_ns() // 1_000_000 - int(options.label_delay_days * DAY_MS)
        result.strata = known.weigh(mature_before_ms)
        if not any(stratum.known for stratum in result.strata):
            raise DataError(
                f"Nothing is known of the transactions in the range: {names.labels} holds no label of them, "
                f"and none was approved {options.label_delay_days:g} days ago."
            )
        with show_count("transactions exported") as report:
            return export(known, reader.read(names.input, starts, ends), output, result, report)


def _whole(reader: RangeReader, topic: str) -> tuple[Offsets, Offsets]:
    return reader.resolve(topic, "earliest"), reader.resolve(topic, "latest")


def _print(result: Exported, output: Path) -> None:
    table = Table(title="what the rows rest on")
    for heading in ("release", "was", "decided", "known", "control sample", "each stands for"):
        table.add_column(heading, justify="left" if heading in {"release", "was"} else "right")
    for one in result.strata:
        counts = (f"{one.decided:,}", f"{one.known:,}", f"{one.control:,}", f"{one.control_weight:.1f}")
        table.add_row(one.release, STRATA[one.stratum], *counts)
    console = Console()
    console.print(table)
    if result.rejected_labels:
        console.print(
            f"{result.rejected_labels.total()} records are no labels: {dict(result.rejected_labels)}"
        )
    if result.unrepresented:
        console.print(
            f"{result.unrepresented:,} transactions have no label, and no control sample stands for them: "
            "the share of fraud in the file is not that of the stream.",
            soft_wrap=True,
        )
    console.print(
        f"{result.rows:,} transactions, {result.frauds:,} frauds: {output}", soft_wrap=True, highlight=False
    )
