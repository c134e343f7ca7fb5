"""The command line: builds everything, then runs it."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from streaming.errors import StreamingError
from streaming.observability import logging as logs
from streaming.settings.load import load_settings
from streaming.settings.sections import (
    BackfillSettings,
    BridgeSettings,
    KafkaSettings,
    MetricsSettings,
    RedriveSettings,
    ReplaySettings,
    ServiceSettings,
    TopicSettings,
)

app = typer.Typer(
    name="streaming",
    help=__doc__.split(":", maxsplit=1)[0] if __doc__ else None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _option(section: type[Any], field: str, *names: str, about: str = "") -> Any:  # noqa: ANN401  # typer has no type for it
    """Make an option whose help and default come from the settings, so both are said once."""
    info = section.model_fields[field]
    text = (about or info.description or "").replace("; null: ", "; default: ")
    if "default:" not in text:
        default = ("no", "yes")[info.default] if isinstance(info.default, bool) else info.default
        text += f" (default: {default})"
    return typer.Option(*names, help=text, show_default=False)


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
) -> None:
    """Decide every transaction of a topic exactly once, until stopped."""
    from streaming.commands.bridge import run_bridge  # --help must not wait for Kafka

    settings = load_settings(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "service": {"classify_url": classify_url},
            "topics": {"input": input_topic, "output": output_topic, "dead_letter": dead_letter_topic},
            "bridge": {"group": group, "instance_id": instance_id},
            "metrics": {"port": metrics_port},
        }
    )
    logs.configure(settings.log)
    run_bridge(settings)


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

    settings = load_settings(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "topics": {"input": topic},
            "replay": {"data": data, "rate": rate, "limit": limit, "loop": loop},
        }
    )
    logs.configure(settings.log)
    run_replay(settings)


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

    settings = load_settings(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "topics": {"input": topic, "dead_letter": dead_letter_topic},
            "bridge": {"group": group},
            "redrive": {"reason": reason, "dry_run": dry_run},
        }
    )
    logs.configure(settings.log)
    run_redrive(settings)


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
        _option(TopicSettings, "output", "--compare-topic", about="topic with the earlier decisions"),
    ] = None,
    report: Annotated[Path | None, _option(BackfillSettings, "report", "--report")] = None,
) -> None:
    """Decide a range of transactions again, to another topic, and tell which decisions changed."""
    from streaming.commands.backfill import run_backfill

    settings = load_settings(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "service": {"classify_url": classify_url},
            "topics": {"input": input_topic, "output": compare_topic},
            "backfill": {"output_topic": output_topic, "begin": begin, "end": end, "report": report},
        }
    )
    logs.configure(settings.log)
    run_backfill(settings)


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
