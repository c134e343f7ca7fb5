"""Runs redrive and backfill: their groups, their transactional ids, their tables."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streaming.bridge.decider import Decider
from streaming.broker.admin import Admin, Topic
from streaming.broker.range_reader import Offsets, Reader, alone_in
from streaming.broker.transactional_producer import TransactionalSink
from streaming.commands.progress_bar import counting
from streaming.errors import DataError, SettingsError
from streaming.observability.metrics import Metrics
from streaming.records import InputRecord
from streaming.reprocessing.backfill import KIND as DECISION
from streaming.reprocessing.backfill import Comparison, Earlier, Sizes, Source, backfill, earlier_decisions
from streaming.reprocessing.redrive import KIND as REDRIVEN
from streaming.reprocessing.redrive import Redriven, Wanted, redrive
from streaming.scoring.backoff import Backoff
from streaming.scoring.client import HttpClassifier
from streaming.settings.load import Settings


def run_redrive(settings: Settings) -> None:
    """Send dead letters back to the input topic and print what was sent.

    Raises
    ------
    StreamingError
        When a topic is missing or the broker fails; run it again, it goes on where it ended.
    """
    names, wanted = settings.topics, settings.redrive
    reason = wanted.reason
    target = _existing(settings, names.input)
    _existing(settings, names.dead_letter)
    group = _progress_group(settings, reason)

    @cache
    def done(which: str | None) -> Mapping[int, int]:
        with Reader(settings.kafka, _progress_group(settings, which)) as reader:
            return reader.committed(names.dead_letter)

    with ExitStack() as stack:
        # One identity for all reasons, so that two redrives cannot run at once; started before anything
        # is read, so that what a killed one left open is aborted.
        identity = _group(settings, "redrive")
        sink = None
        if not wanted.dry_run:
            sink = stack.enter_context(_sink(settings, identity, names.dead_letter, REDRIVEN, target))
        reader = stack.enter_context(Reader(settings.kafka, group))
        first, last = (reader.resolve(names.dead_letter, bound) for bound in ("earliest", "latest"))
        starts = {
            partition: max(offset, done(reason).get(partition, 0)) for partition, offset in first.items()
        }
        letters = reader.read(names.dead_letter, starts, last)
        with counting("dead letters sent") as report:
            result = redrive(letters, sink, alone_in(group), done, Wanted(names.input, reason), report)
    _print_redriven(result, names.dead_letter, names.input, is_dry=wanted.dry_run)


def _progress_group(settings: Settings, reason: str | None) -> str:
    # A group per topic and reason: what was sent back for one must not hide the others.
    parts = () if reason is None else ("reason", reason)
    return _group(settings, "redrive", settings.topics.input, *parts)


def _group(settings: Settings, command: str, *parts: str) -> str:
    text = ".".join((settings.bridge.group, command, *parts))
    name = re.sub(r"[^a-zA-Z0-9._-]", "_", text)
    # Kafka takes 249 characters; two long names must not become one.
    return name if len(name) <= 249 else f"{name[:200]}.{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def _existing(settings: Settings, name: str) -> Topic:
    with Admin(settings.kafka) as admin:
        found = admin.find(name)
    if found is None:
        raise DataError(f"Topic {name} does not exist.")
    return found


@contextmanager
def _sink(
    settings: Settings, identity: str, source: str, kind: str, target: Topic
) -> Iterator[TransactionalSink]:
    sink = TransactionalSink(settings, identity, source, {kind: target})
    sink.start()
    try:
        yield sink
    finally:
        sink.close()


def _print_redriven(result: Redriven, origin: str, target: str, *, is_dry: bool) -> None:
    table = Table(title=f"{origin} to {target}" + (", dry run" if is_dry else ""))
    table.add_column("reason")
    for heading in ("would be sent" if is_dry else "sent", "sent before", "without its bytes"):
        table.add_column(heading, justify="right")
    for reason in sorted(result.sent | result.done_before | result.omitted):
        counts = (result.sent[reason], result.done_before[reason], result.omitted[reason])
        table.add_row(reason, *(str(count) for count in counts))
    console = Console()
    console.print(table)
    if result.other_reason:
        console.print(f"{result.other_reason} letters have another reason.")
    if result.other_topic:
        console.print(f"{result.other_topic} letters are of other topics than {target}: see --topic.")


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
    source = _existing(settings, names.input)
    with Admin(settings.kafka) as admin:
        target = admin.find(output) or admin.create(output, source.partitions, names)
    group = _group(settings, "backfill", output, wanted.begin, wanted.end)
    with (
        _sink(settings, group, names.input, DECISION, target) as sink,
        Reader(settings.kafka, group) as reader,
    ):
        starts, ends = (reader.resolve(names.input, bound) for bound in (wanted.begin, wanted.end))
        done = reader.committed(names.input)
        rest = {partition: max(offset, done.get(partition, 0)) for partition, offset in starts.items()}
        earlier = _decisions(settings, names.output, starts, ends)
        before = _decisions(settings, output, starts, rest)
        comparison = _backfill(settings, reader.read(names.input, rest, ends), sink, group, earlier)
    for place, decision in before.items():
        comparison.add_before((names.input, *place), decision, earlier.get(place))
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


def _decisions(settings: Settings, topic: str, starts: Offsets, ends: Offsets) -> dict[Source, Earlier]:
    """Return the decisions that a topic holds on a range of the input topic."""
    if all(starts.get(partition, 0) >= end for partition, end in ends.items()):
        return {}
    with Admin(settings.kafka) as admin:
        if admin.find(topic) is None:
            return {}
    with Reader(settings.kafka) as reader:
        first, last = (reader.resolve(topic, bound) for bound in ("earliest", "latest"))

        def is_wanted(source: Source) -> bool:
            partition, offset = source
            return starts.get(partition, 0) <= offset < ends.get(partition, 0)

        return earlier_decisions(reader.read(topic, first, last), settings.topics.input, is_wanted)


def _backfill(
    settings: Settings,
    records: Iterator[list[InputRecord]],
    sink: TransactionalSink,
    group: str,
    earlier: dict[Source, Earlier],
) -> Comparison:
    service = settings.service
    classifier = HttpClassifier(service)
    backoff = Backoff(service.backoff_initial_s, service.backoff_max_s, service.retry_after_max_s)
    decide = Decider(classifier, backoff, Metrics()).decide
    sizes = Sizes(service.max_batch_records, service.max_batch_bytes)
    try:
        with counting("decided again") as report:
            return backfill(records, decide, sink, alone_in(group), earlier, sizes, report)
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
