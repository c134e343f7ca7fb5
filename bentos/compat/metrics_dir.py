"""Gives each service on a machine a metrics folder of its own.

BentoML (1.4.40) keeps the files of prometheus_client's multiprocess mode in one folder per BENTOML_HOME and
empties it at start: a second service would delete the metrics of the first, then count for both.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer

from bentos.compat.assumptions import require

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
NAME = "prometheus_multiproc_dir"


def check_assumptions() -> None:
    """Return if BentoML's container says where metrics are kept.

    Raises
    ------
    BrokenAssumptionError
        If BentoML takes the folder from somewhere else.
    """
    folder = getattr(BentoMLContainer, NAME, None)
    is_settable = hasattr(folder, "set") and hasattr(folder, "get")
    require("bentoml", f"`BentoMLContainer.{NAME}` sets where metrics are kept", is_settable)


def use_own_metrics_dir() -> None:
    """Make BentoML keep the metrics of the service that this process starts in a folder of their own."""
    if VARIABLE in os.environ:
        return  # a worker: the first process has chosen
    shared = Path(BentoMLContainer.bentoml_home.get()) / NAME
    for folder in shared.glob("*"):
        if folder.name.isdigit() and not _is_running(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
    BentoMLContainer.prometheus_multiproc_dir.set(str(shared / str(os.getpid())))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True
