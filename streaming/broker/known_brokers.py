"""Remembers the brokers that this process has met.

The addresses given at the start may be down while the cluster is well: whatever is connected anew asks the
brokers that it has told of too.
"""

from collections.abc import Iterable

_met: dict[str, tuple[str, ...]] = {}


def remember_brokers(bootstrap_servers: str, addresses: Iterable[str]) -> None:
    """Note the host:port of the brokers of the cluster behind `bootstrap_servers`."""
    if found := tuple(addresses):
        _met[bootstrap_servers] = found


def addresses_of(bootstrap_servers: str, given: Iterable[str]) -> list[str]:
    """Return host:port of the brokers that were met, and of those that were given."""
    return list(dict.fromkeys([*_met.get(bootstrap_servers, ()), *given]))
