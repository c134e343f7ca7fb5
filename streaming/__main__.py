"""The command line: reads flags and settings, then runs a command."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from streaming.errors import StreamingError
from streaming.observability import logging as logs
from streaming.settings.bridge import BridgeSettings
from streaming.settings.labels import ExportSettings, LabelSettings
from streaming.settings.load import Settings, load_settings
from streaming.settings.monitor import MonitorSettings
from streaming.settings.sections import (
    BackfillSettings,
    KafkaSettings,
    MetricsSettings,
    RedriveSettings,
    ReplaySettings,
    ServiceSettings,
    SkipSettings,
    TopicSettings,
)

app = typer.Typer(
    name="streaming",
    help="Score card transactions from Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _option(section: type[Any], field: str, *names: str, description: str = "") -> Any:  # noqa: ANN401  # typer has no type for it
    """Make an option whose help and default come from the settings, so both are said once."""
    info = section.model_fields[field]
    text = (description or info.description or "").replace("; null: ", "; default: ")
    if "default:" not in text:
        default = ("no", "yes")[info.default] if isinstance(info.default, bool) else info.default
        text = f"{text.removesuffix('.')} (default: {default})."
    return typer.Option(*names, help=text, show_default=False)


def _configure(flags: dict[str, tuple[str, Any]]) -> Settings:
    """Load the settings under a command's flags, and set the logs up as they say.

    Parameters
    ----------
    flags : dict of str to (str, object)
        Flag to the setting that it stands for and its value; None where it was not given.
    """
    values: dict[str, dict[str, Any]] = {}
    for path, value in flags.values():
        section, key = path.split(".")
        values.setdefault(section, {})[key] = value
    settings = load_settings(values, {path: flag for flag, (path, _) in flags.items()})
    logs.configure(settings.log)
    return settings


Servers = Annotated[str | None, _option(KafkaSettings, "bootstrap_servers", "--bootstrap-servers")]
Input = Annotated[str | None, _option(TopicSettings, "input", "--input-topic")]
Output = Annotated[str | None, _option(TopicSettings, "output", "--output-topic")]
DeadLetter = Annotated[str | None, _option(TopicSettings, "dead_letter", "--dead-letter-topic")]
ClassifyUrl = Annotated[str | None, _option(ServiceSettings, "classify_url", "--classify-url")]


@app.command()
def bridge(  # noqa: PLR0913, PLR0917  # one parameter per flag
    bootstrap_servers: Servers = None,
    classify_url: ClassifyUrl = None,
    input_topic: Input = None,
    output_topic: Output = None,
    dead_letter_topic: DeadLetter = None,
    group: Annotated[str | None, _option(BridgeSettings, "group", "--group")] = None,
    instance_id: Annotated[str | None, _option(BridgeSettings, "instance_id", "--instance-id")] = None,
    metrics_port: Annotated[int | None, _option(MetricsSettings, "port", "--metrics-port")] = None,
    accept_gap: Annotated[
        bool | None, _option(BridgeSettings, "accept_gap", "--accept-gap/--no-accept-gap")
    ] = None,
) -> None:
    """Decide every transaction of a topic exactly once, until stopped."""
    from streaming.commands.bridge import run_bridge  # --help must not wait for Kafka

    flags = {
        "--bootstrap-servers": ("kafka.bootstrap_servers", bootstrap_servers),
        "--classify-url": ("service.classify_url", classify_url),
        "--input-topic": ("topics.input", input_topic),
        "--output-topic": ("topics.output", output_topic),
        "--dead-letter-topic": ("topics.dead_letter", dead_letter_topic),
        "--group": ("bridge.group", group),
        "--instance-id": ("bridge.instance_id", instance_id),
        "--metrics-port": ("metrics.port", metrics_port),
        "--accept-gap": ("bridge.accept_gap", accept_gap),
    }
    run_bridge(_configure(flags))


@app.command()
def replay(
    bootstrap_servers: Servers = None,
    topic: Annotated[str | None, _option(TopicSettings, "input", "--topic")] = None,
    data: Annotated[str | None, _option(ReplaySettings, "data", "--data")] = None,
    rate: Annotated[float | None, _option(ReplaySettings, "rate", "--rate")] = None,
    limit: Annotated[int | None, _option(ReplaySettings, "limit", "--limit")] = None,
    loop: Annotated[bool | None, _option(ReplaySettings, "loop", "--loop/--no-loop")] = None,
) -> None:
    """Send the transactions of a file to a topic."""
    from streaming.commands.replay import run_replay

    flags = {
        "--bootstrap-servers": ("kafka.bootstrap_servers", bootstrap_servers),
        "--topic": ("topics.input", topic),
        "--data": ("replay.data", data),
        "--rate": ("replay.rate", rate),
        "--limit": ("replay.limit", limit),
        "--loop": ("replay.loop", loop),
    }
    run_replay(_configure(flags))


@app.command()
def label(  # noqa: PLR0913, PLR0917  # one parameter per flag
    bootstrap_servers: Servers = None,
    topic: Annotated[str | None, _option(TopicSettings, "labels", "--topic")] = None,
    data: Annotated[Path | None, _option(LabelSettings, "data", "--data")] = None,
    origin: Annotated[str | None, _option(LabelSettings, "origin", "--origin")] = None,
    rate: Annotated[float | None, _option(LabelSettings, "rate", "--rate")] = None,
    limit: Annotated[int | None, _option(LabelSettings, "limit", "--limit")] = None,
    input_topic: Input = None,
    dead_letter_topic: Annotated[
        str | None, _option(TopicSettings, "labels_dead_letter", "--dead-letter-topic")
    ] = None,
) -> None:
    """Send the labels of a file to their topic."""
    from streaming.commands.label import run_label

    flags = {
        "--bootstrap-servers": ("kafka.bootstrap_servers", bootstrap_servers),
        "--topic": ("topics.labels", topic),
        "--data": ("label.data", data),
        "--origin": ("label.origin", origin),
        "--rate": ("label.rate", rate),
        "--limit": ("label.limit", limit),
        "--input-topic": ("topics.input", input_topic),
        "--dead-letter-topic": ("topics.labels_dead_letter", dead_letter_topic),
    }
    run_label(_configure(flags))


@app.command()
def export(
    output: Annotated[Path | None, _option(ExportSettings, "output", "--output")] = None,
    begin: Annotated[str | None, _option(ExportSettings, "begin", "--from")] = None,
    end: Annotated[str | None, _option(ExportSettings, "end", "--to")] = None,
    bootstrap_servers: Servers = None,
    input_topic: Input = None,
    decisions_topic: Annotated[str | None, _option(TopicSettings, "output", "--decisions-topic")] = None,
    labels_topic: Annotated[str | None, _option(TopicSettings, "labels", "--labels-topic")] = None,
) -> None:
    """Write the labelled transactions of a range as a data file for training."""
    from streaming.commands.export import run_export

    flags = {
        "--output": ("export.output", output),
        "--from": ("export.begin", begin),
        "--to": ("export.end", end),
        "--bootstrap-servers": ("kafka.bootstrap_servers", bootstrap_servers),
        "--input-topic": ("topics.input", input_topic),
        "--decisions-topic": ("topics.output", decisions_topic),
        "--labels-topic": ("topics.labels", labels_topic),
    }
    run_export(_configure(flags))


@app.command()
def redrive(
    bootstrap_servers: Servers = None,
    dead_letter_topic: DeadLetter = None,
    topic: Annotated[str | None, _option(TopicSettings, "input", "--topic")] = None,
    group: Annotated[str | None, _option(BridgeSettings, "group", "--group")] = None,
    reason: Annotated[str | None, _option(RedriveSettings, "reason", "--reason")] = None,
    dry_run: Annotated[bool | None, _option(RedriveSettings, "dry_run", "--dry-run/--no-dry-run")] = None,
) -> None:
    """Send dead letters back to their topic, each once."""
    from streaming.commands.redrive import run_redrive

    flags = {
        "--bootstrap-servers": ("kafka.bootstrap_servers", bootstrap_servers),
        "--topic": ("topics.input", topic),
        "--dead-letter-topic": ("topics.dead_letter", dead_letter_topic),
        "--group": ("bridge.group", group),
        "--reason": ("redrive.reason", reason),
        "--dry-run": ("redrive.dry_run", dry_run),
    }
    run_redrive(_configure(flags))


@app.command()
def backfill(  # noqa: PLR0913, PLR0917  # one parameter per flag
    output_topic: Annotated[str | None, _option(BackfillSettings, "output_topic", "--output-topic")] = None,
    begin: Annotated[str | None, _option(BackfillSettings, "begin", "--from")] = None,
    end: Annotated[str | None, _option(BackfillSettings, "end", "--to")] = None,
    bootstrap_servers: Servers = None,
    classify_url: ClassifyUrl = None,
    input_topic: Input = None,
    compare_topic: Annotated[
        str | None,
        _option(TopicSettings, "output", "--compare-topic", description="topic with the earlier decisions"),
    ] = None,
    report: Annotated[Path | None, _option(BackfillSettings, "report", "--report")] = None,
) -> None:
    """Decide a range of transactions again, to another topic, and tell which decisions changed."""
    from streaming.commands.backfill import run_backfill

    flags = {
        "--bootstrap-servers": ("kafka.bootstrap_servers", bootstrap_servers),
        "--classify-url": ("service.classify_url", classify_url),
        "--input-topic": ("topics.input", input_topic),
        "--compare-topic": ("topics.output", compare_topic),
        "--output-topic": ("backfill.output_topic", output_topic),
        "--from": ("backfill.begin", begin),
        "--to": ("backfill.end", end),
        "--report": ("backfill.report", report),
    }
    run_backfill(_configure(flags))


@app.command()
def monitor(
    bootstrap_servers: Servers = None,
    state: Annotated[Path | None, _option(MonitorSettings, "state", "--state")] = None,
    port: Annotated[int | None, _option(MonitorSettings, "port", "--port")] = None,
    info_url: Annotated[str | None, _option(MonitorSettings, "info_url", "--info-url")] = None,
    shadow_info_url: Annotated[
        str | None, _option(MonitorSettings, "shadow_info_url", "--shadow-info-url")
    ] = None,
) -> None:
    """Watch live quality, drift, and the challenger in shadow, until stopped."""
    from streaming.commands.monitor import run_monitor

    flags = {
        "--bootstrap-servers": ("kafka.bootstrap_servers", bootstrap_servers),
        "--state": ("monitor.state", state),
        "--port": ("monitor.port", port),
        "--info-url": ("monitor.info_url", info_url),
        "--shadow-info-url": ("monitor.shadow_info_url", shadow_info_url),
    }
    run_monitor(_configure(flags))


@app.command()
def skip(
    partition: Annotated[int | None, _option(SkipSettings, "partition", "--partition")] = None,
    offset: Annotated[int | None, _option(SkipSettings, "offset", "--offset")] = None,
    reason: Annotated[str | None, _option(SkipSettings, "reason", "--reason")] = None,
    bootstrap_servers: Servers = None,
    input_topic: Input = None,
    group: Annotated[str | None, _option(BridgeSettings, "group", "--group")] = None,
) -> None:
    """Send a record that the service fails on to the dead letters, by hand."""
    from streaming.commands.skip import run_skip

    flags = {
        "--partition": ("skip.partition", partition),
        "--offset": ("skip.offset", offset),
        "--reason": ("skip.reason", reason),
        "--bootstrap-servers": ("kafka.bootstrap_servers", bootstrap_servers),
        "--input-topic": ("topics.input", input_topic),
        "--group": ("bridge.group", group),
    }
    run_skip(_configure(flags))


def main() -> NoReturn:
    """Run a command; say what went wrong in one sentence."""
    try:
        app()
    except StreamingError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
