"""The command line of ``training``; heavy imports live inside the commands that need them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from training.errors import TrainingError, UsageError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out = Console()

DataFlag = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="CSV or parquet file; without it data/creditcard.csv, the public copy, or the simulator.",
    ),
]
SeedFlag = Annotated[
    int | None,
    typer.Option(
        help="Seed of split, sampling, weights and bootstrap. [default: from configs/training.yaml, 7]"
    ),
]


@app.command()
def train(
    data: DataFlag = None,
    seed: SeedFlag = None,
    protocol: Annotated[
        str | None, typer.Option(help="random or temporal. [default: from configs/training.yaml, random]")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Most passes of the network over its rows. [default: from configs/training.yaml, 40]"
        ),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Also write the test part to this parquet file, in order of Time.")
    ] = None,
    if_changed: Annotated[
        bool,
        typer.Option(
            "--if-changed", help="Do nothing when the champion was trained from the same data and settings."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote even when the gate refuses; recorded.")
    ] = False,
) -> None:
    """Fit both models, record them, promote them as one release and import it for serving."""
    from training.commands import train_command

    overrides: dict[str, Any] = {"seed": seed, "protocol": protocol}
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if epochs is not None:
        overrides["network"] = {"epochs": epochs}
    train_command(overrides, data=data, held_out=held_out, if_changed=if_changed, force=force, out=out)


@app.command()
def simulate(
    rows: Annotated[int, typer.Option(min=2, help="Transactions to invent.")],
    output: Annotated[Path, typer.Option(help="CSV or parquet file to write.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 7,
) -> None:
    """Write invented transactions with the statistics of the real set."""
    from training.simulate import simulate as invent

    frame = invent(rows, seed)
    if output.suffix == ".parquet":
        frame.to_parquet(output, index=False)
    elif output.suffix == ".csv":
        frame.to_csv(output, index=False)
    else:
        raise UsageError(f"{output}: the suffix must be .csv or .parquet")
    out.print(f"{rows:,} simulated transactions, {int(frame['Class'].sum())} frauds: {output}")


@app.command("import")
def import_() -> None:
    """Copy the champion release from the registry to the BentoML model store."""
    from training.commands import import_command

    import_command(out)


def main() -> None:
    """Run the command line; errors become one sentence and an exit code."""
    # Spinning OpenMP threads cost 3x on a machine whose cores are busy with something else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Neither tool reports usage from a bank's network.
    for variable in ("MLFLOW_DISABLE_TELEMETRY", "BENTOML_DO_NOT_TRACK"):
        os.environ.setdefault(variable, "True")
    try:
        app(standalone_mode=True)
    except TrainingError as error:
        Console(stderr=True).print(f"error: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
