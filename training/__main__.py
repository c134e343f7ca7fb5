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

from training.errors import TrainingError

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
    bool | None,
    typer.Option(help="Only import when the champion has the same data and settings.", show_default="no"),
]
IfNone = Annotated[
    bool | None, typer.Option(help="Only import when there is a champion already.", show_default="no")
]
Force = Annotated[
    bool | None,
    typer.Option(help="Promote although the gate refuses; this is recorded.", show_default="no"),
]

Output = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="CSV or parquet file to write.", show_default="none: it must be given"),
]


def _given(**flags: object) -> dict[str, Any]:
    """Return the flags that were given; the others leave a setting to variable and file."""
    return {name: value for name, value in flags.items() if value not in (None, {})}


@app.command()
def train(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    data: Source = None,
    seed: Seed = None,
    protocol: Protocol = None,
    epochs: Epochs = None,
    genuine_weight: GenuineWeight = None,
    held_out: HeldOut = None,
    if_changed: IfChanged = None,
    if_none: IfNone = None,
    force: Force = None,
) -> None:
    """Fit both models, record them, promote them as one release if the gate agrees, import it for serving."""
    from training.commands import train_command

    overrides = _given(
        data=data,
        seed=seed,
        protocol=protocol,
        genuine_weight=genuine_weight,
        held_out=held_out,
        if_changed=if_changed,
        if_none=if_none,
        network=_given(epochs=epochs),
        gate=_given(force=force),
    )
    train_command(overrides, out)


@app.command()
def score(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV or parquet file of transactions.", show_default="none: it must be given"
        ),
    ] = None,
    output: Output = None,
) -> None:
    """Score a file row for row with the champion, without a server, in constant memory."""
    from training.commands import score_command

    score_command(_given(score=_given(data=data, output=output)), out)


@app.command("import")
def import_() -> None:
    """Copy the champion release from the registry to the BentoML model store."""
    from training.commands import import_command

    import_command(out)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Number of the release, see `releases`.")],
    force: Force = None,
) -> None:
    """Make a release the champion and import it."""
    from training.commands import promote_command

    promote_command(version, _given(gate=_given(force=force)), out)


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
    rows: Annotated[int | None, typer.Option(help="Transactions to invent.", show_default="284807")] = None,
    output: Output = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed: the same one invents the same transactions.", show_default="7"),
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option(help="Share of fraud.", show_default="that of the ULB set, 492 in 284807")
    ] = None,
    change_at: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Change the fraud pattern, and shift V14, after this share of the rows.",
            show_default="no change",
        ),
    ] = None,
) -> None:
    """Write invented transactions with the statistics of the real set."""
    from training.data.simulate import simulate_file
    from training.settings import load_settings

    flags = _given(rows=rows, output=output, seed=seed, prevalence=prevalence, change_at=change_at)
    said = simulate_file(load_settings(_given(simulate=flags)).simulate)
    out.print(said, soft_wrap=True)


@app.command()
def fetch() -> None:
    """Keep the public copy of the ULB set in data/, where `train` finds it."""
    from training.data.openml import fetch as fetch_copy
    from training.data.source import DATA_FOLDER

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
