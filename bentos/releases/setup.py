"""What the processes of a service share: the model store, the rule of what to serve, and the board."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import lru_cache, partial
from pathlib import Path

from bentos.compat.model_store import models_folder
from bentos.compat.process_role import is_worker
from bentos.releases.board import FOLDER_VARIABLE, Board
from bentos.releases.choice import Choice, choose
from bentos.releases.store import ModelStore


def process_store() -> ModelStore:
    """Return the model store this process serves from."""
    return ModelStore(models_folder())


def process_choice(store: ModelStore, release: str | None) -> Choice:
    """Return what says which pair of `store` is to be served; `release` is the setting."""
    return partial(choose, store, release)


def process_board() -> Board:
    """Return the board of the service this process belongs to.

    Every service has its own: its first process makes the folder and names it to those it starts.
    """
    if not is_worker():
        return Board(_make_folder())
    return Board(Path(os.environ[FOLDER_VARIABLE]))


@lru_cache(maxsize=1)
def _make_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fraud-detection-"))
    os.environ[FOLDER_VARIABLE] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
