"""Whether this process was started by BentoML to serve, or is the one that starts the others.

BentoML (1.4.40) imports and configures a service in both, and numbers those that serve.
"""

from __future__ import annotations

from bentoml._internal.context import server_context

from bentos.compat.assumptions import require


def check_assumptions() -> None:
    """Return if BentoML numbers its workers.

    Raises
    ------
    BrokenAssumptionError
        If it does not.
    """
    require(
        "bentoml",
        "the number of a worker is in `server_context.worker_index`",
        hasattr(server_context, "worker_index"),
    )


def is_worker() -> bool:
    """Say whether this is one of the processes that a service's first process starts."""
    return server_context.worker_index is not None
