"""What a workaround takes for granted about a library, checked when the service starts."""

from __future__ import annotations

from importlib.metadata import version

from bentos.errors import StartError


class BrokenAssumptionError(StartError):
    """A library no longer works as a workaround takes for granted; serving on would be slow or wrong."""


def require(library: str, assumption: str, holds: bool) -> None:
    """Return if `assumption` about `library` holds.

    Raises
    ------
    BrokenAssumptionError
        Naming the installed version and what no longer holds.
    """
    if not holds:
        raise BrokenAssumptionError(
            f"{library} {version(library)} does not fit this release of the service: it is assumed that "
            f"{assumption}. Install the version in constraints.txt."
        )
