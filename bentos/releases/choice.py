"""Which pair of the store a service is to serve."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

from bentos.errors import NoReleaseError, ReleaseError
from bentos.releases.store import ModelStore, StoredPair

CHALLENGER = "challenger"
# Set by the first process of a built bento for those it starts: the version it was built with.
PACKED_VARIABLE = "FRAUD_DETECTION_PACKED"


class Choice(Protocol):
    """Says which pair is to be served, now."""

    def __call__(self) -> StoredPair:
        """Return the pair; raises ReleaseError when the store does not hold it."""


def choose(store: ModelStore, release: str | None) -> StoredPair:
    """Return the pair to serve.

    Parameters
    ----------
    store : ModelStore
        Where it lies.
    release : str or None
        A release number, ``challenger``, or None for the active release. A built bento serves what was
        packed into it.

    Raises
    ------
    ReleaseError
        If the store does not hold it.
    """
    packed = os.environ.get(PACKED_VARIABLE)
    if packed:
        return _packed(store, packed, release)
    record = store.record()
    if release == CHALLENGER:
        challenger = (record or {}).get(CHALLENGER)
        if challenger is None:
            raise NoReleaseError(
                "The model store holds no challenger. `python -m training import --challenger` brings one."
            )
        return challenger
    if release is not None:
        return _pinned(store, release, (record or {}).values())
    active = next(iter(store.pairs()), None) if record is None else record["active"]
    if active is None:
        raise NoReleaseError(
            "The model store does not hold a complete release. Train one with `python -m training train`."
        )
    return active


def _pinned(store: ModelStore, release: str, recorded: Iterable[StoredPair | None]) -> StoredPair:
    candidates = [pair for pair in recorded if pair is not None]
    for pair in (*candidates, *store.pairs()):
        if pair.release == release:
            return pair
    raise NoReleaseError(
        f"The model store does not hold release {release}. `python -m training promote {release}` brings it."
    )


def _packed(store: ModelStore, version: str, release: str | None) -> StoredPair:
    pair = next((pair for pair in store.pairs() if pair.version == version), None)
    if pair is None:
        raise NoReleaseError(
            f"The release this bento was built with (version {version}) is not in the store."
        )
    if release not in (None, pair.release):
        raise ReleaseError(
            f"This bento was built with release {pair.release} and serves no other; "
            f"SERVING__RELEASE asks for {release}."
        )
    return pair
