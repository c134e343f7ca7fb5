"""Runs `redrive`: sends dead letters back and prints what was sent."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache

from rich.console import Console
from rich.table import Table

from streaming.broker.group.group_snapshot import group_metadata_without_member
from streaming.broker.range_reader import RangeReader
from streaming.commands.progress_bar import show_count
from streaming.commands.topics import find_topic, group_name, open_sink
from streaming.reprocessing.redrive import KIND as REDRIVEN
from streaming.reprocessing.redrive import RedriveFilter, RedriveResult, read_marks, redrive
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
    target = find_topic(settings, names.input)
    find_topic(settings, names.dead_letter)
    group = _progress_group(settings, reason)

    @cache
    def done(which: str | None) -> Mapping[int, int]:
        with RangeReader(settings.kafka, _progress_group(settings, which)) as reader:
            return reader.committed(names.dead_letter)

    with ExitStack() as stack:
        # One identity for all reasons, so that two redrives cannot run at once; started before anything
        # is read, so that what a killed one left open is aborted.
        identity = group_name(settings, "redrive")
        sink = None
        if not wanted.dry_run:
            sink = stack.enter_context(open_sink(settings, identity, names.dead_letter, REDRIVEN, target))
        reader = stack.enter_context(RangeReader(settings.kafka, group))
        first, last = (reader.resolve(names.dead_letter, bound) for bound in ("earliest", "latest"))
        starts = {
            partition: max(offset, done(reason).get(partition, 0)) for partition, offset in first.items()
        }
        marks = set()
        if not done(reason):
            # No progress, or its offsets have expired: what was sent back stands in the input topic.
            bounds = (reader.resolve(names.input, bound) for bound in ("earliest", "latest"))
            marks = read_marks(reader.read(names.input, *bounds), names.dead_letter)
        letters = reader.read(names.dead_letter, starts, last)
        with show_count("dead letters sent") as report:
            result = redrive(
                letters,
                sink,
                group_metadata_without_member(group),
                done,
                RedriveFilter(names.input, reason),
                report,
                marks,
            )
    _print_redriven(result, names.dead_letter, names.input, is_dry=wanted.dry_run)


def _progress_group(settings: Settings, reason: str | None) -> str:
    # A group per topic and reason: what was sent back for one must not hide the others.
    parts = () if reason is None else ("reason", reason)
    return group_name(settings, "redrive", settings.topics.input, *parts)


def _print_redriven(result: RedriveResult, origin: str, target: str, *, is_dry: bool) -> None:
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
