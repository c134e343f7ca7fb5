"""Fit the two fraud models, track them, promote them as one release, import it for serving, score files."""

# Heavy imports live inside the commands that need them: --help and simulate answer at once.

from __future__ import annotations

import io
import os
import sys
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.models import OptionInfo

from training.errors import TrainingError
from training.priority import let_services_go_first
from training.settings.load import Settings
from training.termination import install_stop_handlers

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out = Console()


def _setting(key: str, *names: str, default: str | None = None, metavar: str | None = None) -> OptionInfo:
    """Return the flag of a setting: its description as help, its default beside it."""
    *blocks, name = key.split(".")
    block = reduce(lambda model, block: model.model_fields[block].annotation, blocks, Settings)  # type: ignore[arg-type,return-value]  # blocks are models
    field = block.model_fields[name]
    shown = default if default is not None else "no" if field.default is False else str(field.default)
    option: OptionInfo = typer.Option(*names, help=field.description, show_default=shown, metavar=metavar)
    return option


REQUIRED = "none: it must be given"
DataFile = Annotated[
    Path | None,
    _setting("data", default="data/creditcard.csv, else the public copy, else the simulator", metavar="FILE"),
]
Epochs = Annotated[int | None, _setting("network.epochs")]
Protocol = Annotated[str | None, _setting("protocol", metavar="random|temporal")]
Seed = Annotated[int | None, _setting("seed")]
GenuineWeight = Annotated[float | None, _setting("genuine_weight")]
HeldOut = Annotated[Path | None, _setting("held_out", default="not written", metavar="FILE")]
IfChanged = Annotated[bool | None, _setting("if_changed")]
IfNone = Annotated[bool | None, _setting("if_none")]
Challenge = Annotated[bool | None, _setting("challenge")]
RefitNewest = Annotated[bool | None, _setting("refit_newest")]
Live = Annotated[str | None, _setting("gate.live", default="not asked", metavar="FILE|URL")]
Force = Annotated[bool | None, _setting("gate.force")]
ScoredPath = Annotated[str | None, _setting("score.data", default=REQUIRED, metavar="PATH")]
ScoredBy = Annotated[str | None, _setting("score.release", default="the champion", metavar="N")]
ScoresPath = Annotated[str | None, _setting("score.output", default=REQUIRED, metavar="PATH")]
Engine = Annotated[str | None, _setting("score.engine", metavar="process|spark")]
Master = Annotated[
    str | None, _setting("score.master", default="spark-defaults.conf, else local[*]", metavar="URL")
]
SimulatedRows = Annotated[int | None, _setting("simulate.rows")]
SimulatedSeed = Annotated[int | None, _setting("simulate.seed")]
Prevalence = Annotated[float | None, _setting("simulate.prevalence", default="492 in 284,807")]
TransactionIds = Annotated[bool | None, _setting("simulate.transaction_ids", "--transaction-ids")]
ChangeAt = Annotated[float | None, _setting("simulate.change_at", default="no change", metavar="FRACTION")]
SimulatedFile = Annotated[Path | None, _setting("simulate.output", default=REQUIRED, metavar="FILE")]


def _given(**flags: object) -> dict[str, Any]:
    """Return the flags that were given; the others leave a setting to variable and file."""
    return {name: value for name, value in flags.items() if value not in (None, {})}


@app.command()
def train(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    data: DataFile = None,
    seed: Seed = None,
    protocol: Protocol = None,
    epochs: Epochs = None,
    genuine_weight: GenuineWeight = None,
    held_out: HeldOut = None,
    if_changed: IfChanged = None,
    if_none: IfNone = None,
    challenge: Challenge = None,
    refit_newest: RefitNewest = None,
    force: Force = None,
) -> None:
    """Fit both models, record them, promote them as one release if the gate agrees, import it for serving.

    Exits with 3 where the gate refuses: the release is registered and stays challenger.
    """
    from training.commands.train import train_command

    overrides = _given(
        data=data,
        seed=seed,
        protocol=protocol,
        genuine_weight=genuine_weight,
        held_out=held_out,
        if_changed=if_changed,
        if_none=if_none,
        challenge=challenge,
        refit_newest=refit_newest,
        network=_given(epochs=epochs),
        gate=_given(force=force),
    )
    train_command(overrides, out)


@app.command()
def recalibrate(
    data: DataFile = None,
    protocol: Protocol = None,
    genuine_weight: GenuineWeight = None,
    challenge: Challenge = None,
    force: Force = None,
) -> None:
    """Refit what decides, but no model, of the champion on recent rows; promote it if the gate agrees."""
    from training.commands.recalibrate import recalibrate_command

    overrides = _given(
        data=data,
        protocol=protocol,
        genuine_weight=genuine_weight,
        challenge=challenge,
        gate=_given(force=force),
    )
    recalibrate_command(overrides, out)


@app.command()
def score(
    data: ScoredPath = None,
    output: ScoresPath = None,
    release: ScoredBy = None,
    engine: Engine = None,
    master: Master = None,
) -> None:
    """Score a file row for row with one release, without a server; folders too, on Spark."""
    from training.commands.score import score_command

    flags = _given(data=data, output=output, release=release, engine=engine, master=master)
    score_command(_given(score=flags), out)


@app.command("import")
def import_(
    challenger: Annotated[
        bool, typer.Option("--challenger", help="Copy the challenger; the active release stays active.")
    ] = False,
) -> None:
    """Copy the champion from the registry to the BentoML model store; running services change over to it."""
    from training.commands.promotion import import_command

    let_services_go_first()
    import_command(out, challenger=challenger)


@app.command()
def promote(
    version: Annotated[
        str, typer.Argument(help="Number of the release, see `releases`, or `challenger`.", metavar="NUMBER")
    ],
    live: Live = None,
    force: Force = None,
) -> None:
    """Make a release the champion if the gate agrees, and import it; exits with 3 where the gate refuses."""
    from training.commands.promotion import promote_command

    let_services_go_first()
    promote_command(version, _given(gate=_given(force=force, live=live)), out)


@app.command()
def rollback() -> None:
    """Make the release before the champion champion again; running services change over to it."""
    from training.commands.promotion import rollback_command

    let_services_go_first()
    rollback_command(out)


@app.command()
def releases() -> None:
    """List all releases with their aliases and what the gate said."""
    from training.commands.releases import releases_command

    releases_command(out)


@app.command()
def simulate(
    rows: SimulatedRows = None,
    output: SimulatedFile = None,
    seed: SimulatedSeed = None,
    prevalence: Prevalence = None,
    transaction_ids: TransactionIds = None,
    change_at: ChangeAt = None,
) -> None:
    """Write invented transactions with the statistics of the real set."""
    from training.data.simulate import simulate_file
    from training.settings.load import load_settings

    sizes = _given(rows=rows, output=output, seed=seed, prevalence=prevalence)
    columns = _given(transaction_ids=transaction_ids, change_at=change_at)
    said = simulate_file(load_settings(_given(simulate={**sizes, **columns})).simulate)
    out.print(said, soft_wrap=True)


@app.command()
def fetch() -> None:
    """Keep the public copy of the ULB set in data/, where `train` finds it."""
    from training.data.openml import fetch as fetch_copy
    from training.data.source import DATA_FOLDER
    from training.settings.load import load_settings

    wait = load_settings({}).fetch
    path = fetch_copy(
        DATA_FOLDER, timeout_s=wait.timeout_s, deadline_s=wait.deadline_s, console=out, say=out.print
    )
    out.print(f"the public copy of the ULB set: {path}", soft_wrap=True)


def main() -> None:
    """Run the command line; an error becomes one sentence and an exit code."""
    # Spinning OpenMP threads cost 3x on a machine whose cores are busy with something else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Neither tool reports usage from a bank's network.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    install_stop_handlers()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a log that is not UTF-8 must not end a training
            stream.reconfigure(errors="replace")
    try:
        app()
    except TrainingError as error:
        Console(stderr=True).print(
            f"error: {error}", style="red", soft_wrap=True, markup=False, highlight=False
        )
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
