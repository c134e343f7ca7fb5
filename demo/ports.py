"""Free ports on the loopback address."""

import socket
from collections.abc import Collection

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Say whether nothing listens on `port` and a server could bind it now."""
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_port(preferred: int, taken: Collection[int] = ()) -> int:
    """Return `preferred` when it is free, else a port the kernel gives.

    Parameters
    ----------
    preferred : int
        The port a user would expect.
    taken : collection of int
        Ports promised to processes that have not bound them yet.
    """
    if preferred not in taken and is_free(preferred):
        return preferred
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port


def accepts_connections(port: int) -> bool:
    """Say whether something listens on `port` of the loopback address."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False
