"""Bounds the wait that BentoML's adaptive batching learns.

BentoML's dispatcher (1.4.0 to 1.4.40 at least) lets an idle model wait for more rows, as long as it learned
from the last bursts, and hardly unlearns it: after a burst one connection waited 100 ms for rows that never
came. It has no setting for that.
"""

from __future__ import annotations

from typing import Any

from bentoml._internal.marshal.dispatcher import CorkDispatcher, Optimizer
from typing_extensions import override

from bentos.compat.assumptions import require

# How often a dispatcher looks whether the model is free; BentoML's own 1 ms is longer than a batch takes.
POLL_INTERVAL_S = 0.0002


class BoundedOptimizer(Optimizer):
    """BentoML's estimate of a batch's cost, with a bounded wait.

    Parameters
    ----------
    max_latency_s : float
        Longest a row may wait for its score.
    max_wait_s : float
        Longest an idle model waits for more rows.
    """

    def __init__(self, max_latency_s: float, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        super().__init__(max_latency_s)

    @property  # type: ignore[override]  # BentoML declares an int and uses it as seconds
    @override
    def wait(self) -> float:
        return min(self._learned_wait_s, self._max_wait_s)

    @wait.setter
    def wait(self, learned_s: float) -> None:
        self._learned_wait_s = learned_s


def check_assumptions() -> None:
    """Return if BentoML's dispatcher is built as `bound_wait` takes for granted.

    Raises
    ------
    BrokenAssumptionError
        If it is not.
    """
    optimizer = getattr(CorkDispatcher(1000, 2, fallback=lambda: None), "optimizer", None)
    require(
        "bentoml",
        "its dispatcher reads `optimizer.wait` and polls every `TICKET_INTERVAL` seconds",
        isinstance(optimizer, Optimizer)
        and "wait" in vars(optimizer)
        and isinstance(getattr(CorkDispatcher, "TICKET_INTERVAL", None), float),
    )


def bound_wait(dispatcher: CorkDispatcher[Any, Any], max_wait_ms: float) -> None:
    """Replace the optimizer of `dispatcher` by one whose wait is bounded."""
    dispatcher.optimizer = BoundedOptimizer(dispatcher.max_latency, max_wait_ms / 1000)
    dispatcher.TICKET_INTERVAL = POLL_INTERVAL_S
