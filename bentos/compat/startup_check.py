"""Checks what every workaround takes for granted, before the service starts."""

from __future__ import annotations

from bentos.compat import (
    bounded_optimizer,
    bulk_histogram,
    gc_freeze,
    graceful_shutdown,
    metrics_dir,
    model_store,
    process_role,
    serve_command,
    uvicorn_limits,
    uvicorn_single_write,
    uvicorn_tls,
)

WORKAROUNDS = (
    bounded_optimizer,
    bulk_histogram,
    gc_freeze,
    graceful_shutdown,
    metrics_dir,
    model_store,
    process_role,
    serve_command,
    uvicorn_limits,
    uvicorn_single_write,
    uvicorn_tls,
)


def check_all_assumptions() -> None:
    """Return if BentoML, Starlette, uvicorn and prometheus_client work as all workarounds take for granted.

    Raises
    ------
    BrokenAssumptionError
        Naming the library, its version and what no longer holds.
    """
    for workaround in WORKAROUNDS:
        workaround.check_assumptions()
