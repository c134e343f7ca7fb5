"""The command line: builds everything, then runs it."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from streaming import logs
from streaming.errors import SettingsError, StreamingError
from streaming.settings import (
    BridgeSettings,
    KafkaSettings,
    MetricsSettings,
    ReplaySettings,
    ServiceSettings,
    TopicSettings,
    load_settings,
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
    return typer.Option(
        *names, help=f"{about or info.description} (default: {info.default})", show_default=False
    )


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
    from streaming.run import run_bridge  # --help must not wait for Kafka

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
    data: Annotated[
        str, typer.Option(help="CSV or parquet file, or `simulator` (default: simulator)", show_default=False)
    ] = "simulator",
    rate: Annotated[float | None, _option(ReplaySettings, "rate", "--rate")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="most transactions to send (default: all)")] = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="begin the file again at its end, until stopped (default: no)")
    ] = False,
) -> None:
    """Send the transactions of a file to a topic."""
    from streaming.run import run_replay

    settings = load_settings(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "topics": {"input": topic},
            "replay": {"rate": rate},
        }
    )
    logs.configure(settings.log)
    run_replay(settings, data, limit, is_looping=loop)


@app.command()
def redrive(
    bootstrap_servers: Servers = None,
    dead_letter_topic: DeadLetter = None,
    topic: Annotated[str | None, _option(TopicSettings, "input", "--topic")] = None,
    group: Annotated[str | None, _option(BridgeSettings, "group", "--group")] = None,
    reason: Annotated[
        str | None, typer.Option(help="only letters with this error.reason (default: all)")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count (default: send)")] = False,
) -> None:
    """Send dead letters back to their topic, each once."""
    from streaming.rework import run_redrive

    settings = load_settings(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "topics": {"input": topic, "dead_letter": dead_letter_topic},
            "bridge": {"group": group},
        }
    )
    logs.configure(settings.log)
    run_redrive(settings, reason, is_dry=dry_run)


BOUND = "an offset, a time like 2026-01-31T12:00:00 (UTC), `earliest` or `latest`"


@app.command()
def backfill(  # noqa: PLR0913, PLR0917  # one parameter per flag
    output_topic: Annotated[str, typer.Option(help="topic for the new decisions; created when missing")],
    begin: Annotated[str, typer.Option("--from", help=f"first transaction: {BOUND}")] = "earliest",
    end: Annotated[str, typer.Option("--to", help=f"where to end, itself left out: {BOUND}")] = "latest",
    bootstrap_servers: Servers = None,
    classify_url: ClassifyUrl = None,
    input_topic: Input = None,
    compare_topic: Annotated[
        str | None,
        _option(TopicSettings, "output", "--compare-topic", about="topic with the earlier decisions"),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file for the report (default: none)")] = None,
) -> None:
    """Decide a range of transactions again, to another topic, and tell which decisions changed."""
    from streaming.rework import run_backfill

    compared = load_settings({"topics": {"output": compare_topic}}).topics.output
    if compared == output_topic:
        raise SettingsError(
            f"--output-topic {output_topic} holds the earlier decisions: choose another topic."
        )
    settings = load_settings(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "service": {"classify_url": classify_url},
            "topics": {"input": input_topic, "output": output_topic},
        }
    )
    logs.configure(settings.log)
    run_backfill(settings, begin, end, compared, report)


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
