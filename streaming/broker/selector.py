"""The selector that kafka-python's I/O threads wait on."""

from __future__ import annotations

import selectors
from typing import Protocol


class HasFileno(Protocol):
    """What can be waited for, besides a bare file descriptor."""

    def fileno(self) -> int:
        """Return the file descriptor."""


class QuickSelector(selectors.DefaultSelector):
    """The standard library's selector, with a cheaper way to say that a socket is not registered.

    kafka-python asks for a socket's key before each wait, nearly always in vain. The answer of the standard
    library is an error text with the socket in it, for which the socket makes four system calls: a fifth of
    the producer thread's time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[int | HasFileno, selectors.SelectorKey] = {}  # by file object

    def register(self, fileobj: int | HasFileno, events: int, data: object = None) -> selectors.SelectorKey:
        """See `selectors.BaseSelector.register`."""
        key = self._keys[fileobj] = super().register(fileobj, events, data)
        return key

    def modify(self, fileobj: int | HasFileno, events: int, data: object = None) -> selectors.SelectorKey:
        """See `selectors.BaseSelector.modify`."""
        key = self._keys[fileobj] = super().modify(fileobj, events, data)
        return key

    def unregister(self, fileobj: int | HasFileno) -> selectors.SelectorKey:
        """See `selectors.BaseSelector.unregister`."""
        self._keys.pop(fileobj, None)
        return super().unregister(fileobj)

    def get_key(self, fileobj: int | HasFileno) -> selectors.SelectorKey:
        """Return the key of a registered file object.

        Raises
        ------
        KeyError
            If it is not registered.
        """
        return self._keys[fileobj]

    def close(self) -> None:
        """See `selectors.BaseSelector.close`."""
        self._keys.clear()
        super().close()
