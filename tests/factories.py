"""Invented transactions for tests: one as a client sends it, or a frame as a data file holds them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FEATURES = ("Time", *(f"V{i}" for i in range(1, 29)), "Amount")


def make_transaction(**changes: object) -> dict[str, object]:
    """Return one unremarkable transaction, with changes: `make_transaction(amount=3.5, v14=-9)`.

    Names may be written small; any further name becomes a further field.
    """
    transaction: dict[str, object] = {name: round(0.1 * (-1) ** i, 2) for i, name in enumerate(FEATURES)}
    transaction |= {"Time": 40_000.0, "Amount": 21.9}
    for name, value in changes.items():
        transaction[name.capitalize() if name.capitalize() in FEATURES else name] = value
    return transaction


def make_frame(rows: int = 2_000, seed: int = 0, prevalence: float = 0.05) -> "pd.DataFrame":
    """Return invented transactions with enough frauds to split and fit, in order of Time."""
    from training.data.simulate import simulate

    return simulate(rows, seed, prevalence=prevalence)
