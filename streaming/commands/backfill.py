"""Runs `backfill`: decides a range again and prints which decisions changed."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streaming.bridge.decider import Decider
from streaming.bridge_state import BridgeState
from streaming.broker.admin import Admin
from streaming.broker.group.group_snapshot import group_metadata_without_member
from streaming.broker.range_reader import Offsets, RangeReader
from streaming.broker.transactional_producer import TransactionalProducer
from streaming.commands.progress_bar import show_count
from streaming.commands.topics import find_topic, group_name, open_sink
from streaming.errors import DataError, SettingsError
from streaming.observability.metrics import Metrics
from streaming.records import InputRecord
from streaming.reprocessing.backfill import (
    KIND as DECISION,
)
from streaming.reprocessing.backfill import (
    BatchLimits,
    Comparison,
    backfill,
    without_decided,
)
from streaming.reprocessing.decision_table import DecisionTable
from streaming.reprocessing.earlier_decisions import collect_decisions, find_start
from streaming.scoring.backoff import Backoff
from streaming.scoring.client import HttpClassifier
from streaming.settings.load import Settings


def run_backfill(settings: Settings) -> None:
    """Decide a range again, to another topic, and print which decisions changed.

    Raises
    ------
    StreamingError
        When a bound or topic is wrong, or broker or service refuse; run it again, it goes on.
    """
    names, wanted = settings.topics, settings.backfill
    output = _other_topic(settings)
    _check_place(wanted.report)
    source = find_topic(settings, names.input)
    with Admin(settings.kafka) as admin:
        target = admin.find(output) or admin.create(output, source.partitions, names)
    # One identity for a topic, so that two backfills of overlapping ranges cannot run into it at once.
    group = group_name(settings, "backfill", output)
    with (
        open_sink(settings, group, names.input, DECISION, target) as sink,
        RangeReader(settings.kafka, group) as reader,
    ):
        starts, ends = (reader.resolve(names.input, bound) for bound in (wanted.begin, wanted.end))
        earlier = _decisions(settings, names.output, starts, ends, by_bridge=True)
        # What is done stands in the output topic: offsets of a group would expire, and know one range only.
        # Runs over several ranges leave them in no order: all of it is read.
        before = _decisions(settings, output, starts, ends, by_bridge=False)
        records = without_decided(reader.read(names.input, starts, ends), before)
        comparison = _backfill(settings, records, sink, group, earlier)
    for at, decision in before.items():
        comparison.add_before((names.input, *at), decision, earlier.get(at))
    _print_comparison(comparison, output)
    _write(comparison, wanted.report)


def _other_topic(settings: Settings) -> str:
    names, output = settings.topics, settings.backfill.output_topic
    if output is None:
        raise SettingsError("--output-topic is missing: name a topic for the new decisions.")
    holds = {
        names.output: "earlier decisions",
        names.input: "transactions",
        names.dead_letter: "dead letters",
    }
    if output in holds:
        raise SettingsError(f"--output-topic {output} holds the {holds[output]}: choose another topic.")
    return output


def _check_place(report_file: Path | None) -> None:
    # Hours of deciding come before the report is written.
    if report_file is not None and (report_file.is_dir() or not report_file.parent.is_dir()):
        raise DataError(f"The report cannot be written to {report_file}: --report wants a file in a folder.")


def _write(comparison: Comparison, report_file: Path | None) -> None:
    if report_file is None:
        return
    try:
        report_file.write_text(comparison.as_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"The report cannot be written to {report_file}: {error.strerror}. Nothing else is missing: "
            "run the same command again, with another --report."
        ) from error


def _decisions(
    settings: Settings, topic: str, starts: Offsets, ends: Offsets, *, by_bridge: bool
) -> DecisionTable:
    """Return the decisions that a topic holds on a range of the input topic."""
    table = DecisionTable(starts, ends)
    with Admin(settings.kafka) as admin:
        if not table.starts or admin.find(topic) is None:
            return table
    with RangeReader(settings.kafka) as reader:
        bounds = first, last = reader.resolve(topic, "earliest"), reader.resolve(topic, "latest")
        is_ordered = False
        if by_bridge:
            first, is_ordered = find_start(reader, topic, bounds, settings.topics.input, table)
        chunks = reader.read(topic, first, last)
        collect_decisions(chunks, settings.topics.input, table, is_ordered=is_ordered)
    return table


def _backfill(
    settings: Settings,
    records: Iterator[list[InputRecord]],
    sink: TransactionalProducer,
    group: str,
    earlier: DecisionTable,
) -> Comparison:
    service = settings.service
    classifier = HttpClassifier(service)
    backoff = Backoff(service.backoff_initial_s, service.backoff_max_s, service.retry_after_max_s)
    decide = Decider(classifier, backoff, Metrics(), BridgeState()).decide
    limits = BatchLimits(service.max_batch_records, service.max_batch_bytes)
    try:
        with show_count("decided again") as report:
            return backfill(
                records, decide, sink, group_metadata_without_member(group), earlier, limits, report
            )
    finally:
        classifier.close()


def _print_comparison(found: Comparison, target: str) -> None:
    console = Console()
    releases = ", ".join(sorted(found.releases)) or "none"
    console.print(f"{found.decided.total()} decisions to {target}, release {releases}.")
    if found.decided_before:
        console.print(
            f"{found.decided_before} of them were made by an earlier run of the same range and are kept: "
            "to decide those again, by another release for instance, choose another --output-topic."
        )
    if found.undecidable:
        console.print(
            f"{found.undecidable.total()} transactions cannot be decided: {dict(found.undecidable)}"
        )
    table = Table(title="compared with the earlier decisions")
    for heading in ("earlier", "now"):
        table.add_column(heading)
    table.add_column("transactions", justify="right")
    table.add_row("as now", "unchanged", str(found.unchanged))
    for (old, new), count in sorted(found.changes.items()):
        table.add_row(old, new, str(count))
    if found.without_earlier:
        table.add_row("none found", "decided", str(found.without_earlier))
    console.print(table)
    for one in found.examples:
        console.print(
            f"{one['topic']} {one['partition']}@{one['offset']}: "
            f"{one['from']} (release {one['from_release']}) "
            f"to {one['to']} (release {one['to_release']})",
            highlight=False,
        )
