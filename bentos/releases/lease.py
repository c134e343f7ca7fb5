"""Tells the process that tidies the model store that a pair is in use: a shared lock on a model's folder.

The kernel takes it back with the process, however that ends, and containers on one machine share it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from bentos.errors import ReleaseError


class Lease:
    """Keeps a stored model from being deleted until it is closed.

    Parameters
    ----------
    folder : Path
        The model's folder in the store.

    Raises
    ------
    ReleaseError
        If the folder is not there, or is being deleted.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._descriptor = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise ReleaseError(f"{folder} cannot be opened: {error.strerror}.") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ReleaseError(f"{folder} is being deleted.") from None
        except OSError:  # a file system without locks: training deletes nothing there
            pass

    def close(self) -> None:
        """Let the model be deleted."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
