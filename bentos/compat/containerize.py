"""``bentoml containerize`` for a bento with its own Dockerfile template, refused by BentoML since 1.4.36.

It copies the bento to a temporary folder, then takes the template there for a file outside the project
(https://github.com/bentoml/BentoML/issues/5566). Here that folder is made inside the project. A command of
BentoML's by way of pyproject.toml; both go once that issue is closed.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import click
from bentoml_cli.containerize import containerize_command as _bentoml_command

from bentos.compat.assumptions import require
from bentos.errors import StartError

P = ParamSpec("P")
T = TypeVar("T")

# Ignored by git, and no part of it hidden: BentoML refuses hidden folders too.
SCRATCH = Path("build")


def _inside_project(build: Callable[P, T]) -> Callable[P, T]:
    """Give `build` temporary folders below the current one."""

    @functools.wraps(build)
    def command(*arguments: P.args, **options: P.kwargs) -> T:
        before = tempfile.tempdir
        SCRATCH.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="containerize-", dir=SCRATCH) as folder:
            tempfile.tempdir = str(Path(folder).resolve())
            try:
                return build(*arguments, **options)
            finally:
                tempfile.tempdir = before

    return command


def check_assumptions() -> None:
    """Return if BentoML's command can be wrapped as `containerize_command` is.

    Raises
    ------
    BrokenAssumptionError
        If it cannot: an image would be refused again.
    """
    require(
        "bentoml",
        "`bentoml_cli.containerize.containerize_command` is a command of click's with a callback",
        callable(_bentoml_command.callback),
    )


def _containerize(*arguments: Any, **options: Any) -> object:  # noqa: ANN401  # BentoML's flags
    try:
        check_assumptions()  # here, and not at import: every other command of BentoML's must go on working
    except StartError as error:
        raise click.ClickException(str(error)) from error
    return _inside_project(cast("Callable[..., object]", _bentoml_command.callback))(*arguments, **options)


containerize_command = copy.copy(_bentoml_command)
containerize_command.callback = _containerize
