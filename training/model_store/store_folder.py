"""Where the BentoML model store lies, and whether it can be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from training.errors import StoreError

# A variable that names itself would be expanded for ever.
_NESTED = 10


def store_folder() -> Path:
    """Return the folder of the models: all of the store that containers share.

    ``~`` and variables in BENTOML_HOME mean what they mean to BentoML: a file of variables, unlike a shell,
    leaves them as they are. Asking BentoML itself would cost a promotion the second that importing it takes.
    """
    home = os.environ.get("BENTOML_HOME", "~/bentoml")
    for _ in range(_NESTED):
        expanded = os.path.expanduser(os.path.expandvars(home))  # noqa: PTH111  # pathlib refuses unknown users
        if expanded == home:
            break
        home = expanded
    return Path(home) / "models"


def make_store_folder() -> Path:
    """Return the folder of the models, made where it is missing.

    Raises
    ------
    StoreError
        If it cannot be made or written.
    """
    folder = store_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, prefix=".writable."):
            pass
    except OSError as error:
        raise StoreError(
            f"the BentoML model store {folder} cannot be written: {error.strerror or error}; "
            "BENTOML_HOME says where it lies"
        ) from error
    return folder
