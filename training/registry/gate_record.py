"""What a release's tags say about the gate, and whether that still holds.

Apart from what runs the gate: a promotion that need not ask it does not import that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.registry.releases import Release

GATE_TAG, AGAINST_TAG, NOT_RUN, NO_CHAMPION = "gate", "gate_against", "not asked", "none"


def staleness_reason(release: Release, champion: Release | None) -> str | None:
    """Return why the result recorded with a release does not hold now; None when it does."""
    if release.tags.get(GATE_TAG, NOT_RUN) == NOT_RUN:
        return "was never judged by the gate"
    against = release.tags.get(AGAINST_TAG, NO_CHAMPION)
    if champion is None or against == champion.number:
        return None
    if against == NO_CHAMPION:
        return f"was not judged against release {champion.number}, which is champion"
    return f"was judged against release {against}, and release {champion.number} is champion by now"
