"""A folder of its own for the metrics of each service on a machine.

BentoML keeps them in one folder per BENTOML_HOME and empties it at start: a second service would wipe the
metrics of the first and then count for both.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer


def choose() -> None:
    """Make BentoML keep the metrics of the service this process starts apart from every other's."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        return  # a worker: its service has chosen
    shared = Path(BentoMLContainer.bentoml_home.get()) / "prometheus_multiproc_dir"
    _forget_the_dead(shared)
    BentoMLContainer.prometheus_multiproc_dir.set(str(shared / str(os.getpid())))


def _forget_the_dead(shared: Path) -> None:
    for folder in shared.glob("*"):
        if folder.name.isdigit() and not _runs(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True
