"""What ``bentoml serve`` (1.4.40) was told on its command line, and what it cannot do.

It ends with a bare AssertionError where the sockets of the runners have too long a path, and with the
traceback of its process manager where the port is taken. It reports usage to its makers unless a variable
says otherwise, and has asked for that before it imports a service.
"""

from __future__ import annotations

import os
import tempfile
from typing import NamedTuple

import click
from _bentoml_impl.server import serving  # type: ignore[import-untyped]
from bentoml._internal.utils.analytics import usage_stats

from bentos.compat.assumptions import require

# The folder's name is bentoml-uds-xxxxxxxx, a socket's up to 20 digits and .sock.
SOCKET_NAME_BYTES = len("/bentoml-uds-xxxxxxxx/") + 20 + len(".sock")


class Address(NamedTuple):
    """Where the public port is to be; None where no flag says so."""

    host: str | None
    port: int | None


def check_assumptions() -> None:
    """Return if BentoML limits the path of a socket as is taken for granted.

    Raises
    ------
    BrokenAssumptionError
        If it does otherwise.
    """
    limit = getattr(serving, "MAX_AF_UNIX_PATH_LENGTH", None)
    require(
        "bentoml", "`MAX_AF_UNIX_PATH_LENGTH` bounds the path of a runner's socket", isinstance(limit, int)
    )
    asked = getattr(usage_stats, "do_not_track", None)
    require("bentoml", "`do_not_track` is asked before each report of usage", hasattr(asked, "cache_clear"))


def report_no_usage() -> None:
    """Keep BentoML from reporting usage unless the environment decides; what it remembers is asked anew."""
    os.environ.setdefault(usage_stats.BENTOML_DO_NOT_TRACK, "True")
    usage_stats.do_not_track.cache_clear()


def serve_flags() -> Address | None:
    """Return the flags of the ``bentoml serve`` that runs in this process; None if none does."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "serve":
        return None
    return Address(context.params.get("host"), context.params.get("port"))


def longest_temporary_folder() -> int:
    """Return how long the path of the temporary folder may be."""
    return int(serving.MAX_AF_UNIX_PATH_LENGTH) - SOCKET_NAME_BYTES - 1


def temporary_folder() -> str:
    """Return where BentoML makes the sockets of the runners."""
    return tempfile.gettempdir()
