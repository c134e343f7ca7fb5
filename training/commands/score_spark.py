"""``python -m training score --engine spark``: plan, score what is not done yet, say what came of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from training.console import ProgressConsole, open_progress
from training.errors import DataError, UsageError
from training.registry.releases import Registry
from training.scoring.partition_task import PartitionResult, ScoreJob
from training.scoring.partitions import SUFFIXES, Partition, Plan, pack_partitions, plan_partitions
from training.scoring.score_folder import DoneRecord, ScoreFolder
from training.scoring.spark import check_spark, release_identity, score_on_spark, start_spark, stop_spark
from training.scoring.storage import Storage
from training.settings.load import Settings
from training.settings.paths import require_path
from training.settings.sections import ScoreSettings

SHOWN_PROBLEMS = 20


def score_with_spark(settings: Settings, out: Console) -> None:
    """Score a file or folder with one release; a partition that is done already is not scored again.

    Raises
    ------
    DataError
        If a file could not be scored; all the others are.
    """
    data = Storage.at(require_path(settings.score.data, "--data"))
    output = Storage.at(require_path(settings.score.output, "--output"))
    check_spark()
    if output.lies_in(data):
        raise UsageError(f"{output.address}: lies in {data.address}: scores would be scored the next time")
    plan = plan_partitions(data, settings.score.partition_mib << 20)
    registry = Registry(settings.tracking_uri)
    number = settings.score.release
    scoring = registry.release(number) if number else registry.require_champion()
    with tempfile.TemporaryDirectory() as temporary:
        release = registry.fetch(scoring, Path(temporary))
        rules = f"{release_identity(release)} {settings.limits.model_dump_json()}"
        folder = ScoreFolder(output, f"{scoring.number} {rules}")
        folder.open()
        done = folder.done(plan.partitions)
        rest = [partition for partition in plan.partitions if folder.key(partition) not in done]
        job = ScoreJob(data, folder, plan.is_folder, settings.limits)
        results, seconds = _score(job, rest, release, settings.score, out)
    problems = [result.problem for result in results if result.problem is not None]
    folder.close(complete=not problems)
    out.print(
        _summary(results, done, scoring.number, seconds, output.address), soft_wrap=True, highlight=False
    )
    _refuse_problems(plan, problems, out)


def _score(
    job: ScoreJob, rest: Sequence[Partition], release: Path, settings: ScoreSettings, out: Console
) -> tuple[list[PartitionResult], float]:
    """Return what became of each partition, and how long that took once Spark had started."""
    if not rest:
        return [], 0.0
    with ProgressConsole(out).step("Start Spark") as report:
        context = start_spark(settings.master, settings.spark)
        report(f"{context.master}, {context.defaultParallelism} at a time")
    started = time.perf_counter()
    try:
        with open_progress(out) as progress:
            task = progress.add_task(f"{len(rest):,} partitions", total=len(rest))
            cores = context.defaultParallelism
            tasks = pack_partitions(rest, settings.partition_mib << 20, cores)
            results = score_on_spark(context, job, tasks, release, lambda done: progress.advance(task, done))
        return results, time.perf_counter() - started
    finally:
        stop_spark(context)


def _summary(
    results: Sequence[PartitionResult],
    done: Mapping[str, DoneRecord],
    release: str,
    seconds: float,
    output: str,
) -> str:
    rows = sum(result.rows for result in results)
    refused = sum(result.refused for result in results)
    text = (
        f"{rows:,} transactions scored by release {release} on Spark "
        f"in {seconds:.1f} s ({rows / max(seconds, 1e-9):,.0f}/s): {output}"
    )
    if refused:
        text += f"\n{refused:,} rows were refused and not scored; {output}/_refused says which and why"
    if done:
        before, bad = sum(item.rows for item in done.values()), sum(item.refused for item in done.values())
        text += f"\n{len(done):,} partitions were done before: {before:,} rows scored, {bad:,} refused"
    return text


def _refuse_problems(plan: Plan, problems: Sequence[str], out: Console) -> None:
    if plan.ignored:
        out.print(f"{plan.ignored:,} files with other suffixes than {', '.join(SUFFIXES)} were left out")
    for problem in problems[:SHOWN_PROBLEMS]:
        out.print(problem, soft_wrap=True, highlight=False, markup=False)
    if problems:
        more = f", of which {SHOWN_PROBLEMS} are named above" if len(problems) > SHOWN_PROBLEMS else ""
        raise DataError(
            f"{len(problems):,} of {len(plan.partitions):,} partitions could not be scored{more}: "
            "mend or remove their files and run the same command again, it scores only what is missing"
        )
