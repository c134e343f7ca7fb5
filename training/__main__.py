"""Fit the two fraud models, track them, promote them as one release, import it for serving, score files."""

# Heavy imports live inside the commands that need them: --help and simulate answer at once.

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from training.errors import TrainingError, UsageError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out = Console()

Source = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="CSV or parquet file of labelled transactions.",
        show_default="data/creditcard.csv, else the public copy, else the simulator",
    ),
]
Epochs = Annotated[
    int | None, typer.Option(help="Most passes of the network over its rows.", show_default="30")
]
Protocol = Annotated[
    str | None,
    typer.Option(
        metavar="random|temporal",
        help="Split at random, or train on the past and test on the end.",
        show_default="random",
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="Seed of sampling, first weights and bootstrap.", show_default="7")
]
GenuineWeight = Annotated[
    float | None,
    typer.Option(
        help="Transactions a genuine row stands for, where the file has no sample_weight.", show_default="1.0"
    ),
]
HeldOut = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also write the test part to this parquet file, in order of Time.",
        show_default="not written",
    ),
]
IfChanged = Annotated[
    bool, typer.Option("--if-changed", help="Only import when the champion has the same data and settings.")
]
IfNone = Annotated[bool, typer.Option("--if-none", help="Only import when there is a champion already.")]
Force = Annotated[bool, typer.Option("--force", help="Promote although the gate refuses; this is recorded.")]


@app.command()
def train(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    data: Source = None,
    seed: Seed = None,
    protocol: Protocol = None,
    epochs: Epochs = None,
    genuine_weight: GenuineWeight = None,
    held_out: HeldOut = None,
    if_changed: IfChanged = False,
    if_none: IfNone = False,
    force: Force = False,
) -> None:
    """Fit both models, record them, promote them as one release if the gate agrees, import it for serving."""
    from training.commands import train_command

    flags: dict[str, Any] = {
        "data": data,
        "seed": seed,
        "protocol": protocol,
        "genuine_weight": genuine_weight,
    }
    overrides = {name: value for name, value in flags.items() if value is not None}
    if epochs is not None:
        overrides["network"] = {"epochs": epochs}
    train_command(overrides, held_out=held_out, if_changed=if_changed, if_none=if_none, force=force, out=out)


@app.command()
def score(
    data: Annotated[Path, typer.Option(metavar="FILE", help="CSV or parquet file of transactions.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="CSV or parquet file to write, row for row.")],
) -> None:
    """Score a file with the champion, without a server, in constant memory."""
    from training.commands import score_command

    score_command(data, output, out)


@app.command("import")
def import_() -> None:
    """Copy the champion release from the registry to the BentoML model store."""
    from training.commands import import_command

    import_command(out)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Number of the release, see `releases`.")],
    force: Force = False,
) -> None:
    """Make a release the champion and import it."""
    from training.commands import promote_command

    promote_command(version, force=force, out=out)


@app.command()
def rollback() -> None:
    """Make the release before the champion champion again and import it."""
    from training.commands import rollback_command

    rollback_command(out)


@app.command()
def releases() -> None:
    """List all releases with their aliases and what the gate said."""
    from training.commands import releases_command

    releases_command(out)


@app.command()
def simulate(
    rows: Annotated[int, typer.Option(min=2, help="Transactions to invent.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="CSV or parquet file to write.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed: the same one invents the same transactions.")] = 7,
) -> None:
    """Write invented transactions with the statistics of the real set."""
    from training.files import SUFFIXES, write_frame
    from training.simulate import simulate as invent

    if output.suffix.lower() not in SUFFIXES or not output.parent.is_dir():
        raise UsageError(f"{output}: must be a {' or '.join(SUFFIXES)} file in a folder that exists")
    frame = invent(rows, seed)
    write_frame(frame, output)
    frauds = int(frame["Class"].sum())
    out.print(f"{rows:,} simulated transactions, {frauds} frauds: {output}", soft_wrap=True)


@app.command()
def fetch() -> None:
    """Keep the public copy of the ULB set in data/, where `train` finds it."""
    from training.fetch import fetch as fetch_copy
    from training.source import DATA_FOLDER

    path = fetch_copy(DATA_FOLDER, console=out)
    out.print(f"the public copy of the ULB set: {path}", soft_wrap=True)


def _stop(number: int, _frame: FrameType | None) -> None:
    """Leave through the clean-up of every open block."""
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line; an error becomes one sentence and an exit code."""
    # Spinning OpenMP threads cost 3x on a machine whose cores are busy with something else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Neither tool reports usage from a bank's network.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except TrainingError as error:
        Console(stderr=True).print(
            f"error: {error}", style="red", soft_wrap=True, markup=False, highlight=False
        )
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
