"""Lets services go first on the machine that a command shares with them."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os

# A third of the weight of a service: it answers first, and a rollback on a busy machine still takes seconds.
NICENESS = 5
# Thousands of classes that live as long as the process are imported: looking through them over and over for
# garbage was a third of a promotion's processor time.
GARBAGE_THRESHOLDS = (100_000, 50, 100)


def let_services_go_first() -> None:
    """Lower the priority of this process until it ends, and spare it the search for garbage that is none."""
    with contextlib.suppress(OSError, AttributeError):  # forbidden here, or another system
        os.nice(NICENESS)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    # Python looks through everything a last time when it ends, just when services change over.
    atexit.register(gc.freeze)
