"""Gives the memory of a dropped model back to the system.

glibc keeps freed blocks for later: a runner that has loaded and dropped 20 releases keeps memory of each.
``malloc_trim`` hands whole free pages back. Other C libraries do that by themselves and lack the function.
"""

from __future__ import annotations

import ctypes


def give_memory_back() -> None:
    """Hand free pages back to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
