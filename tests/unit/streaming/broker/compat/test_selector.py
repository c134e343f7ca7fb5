import selectors
import socket
from collections.abc import Iterator

import pytest

from streaming.broker.compat.selector import FastLookupSelector


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_it_keeps_the_keys_that_the_standard_one_keeps(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with FastLookupSelector() as quick:
        quick.register(ours, selectors.EVENT_READ, "a")
        assert quick.get_key(ours) == quick.get_map()[ours]
        quick.modify(ours, selectors.EVENT_READ | selectors.EVENT_WRITE, "b")
        assert quick.get_key(ours) == quick.get_map()[ours]
        assert quick.get_key(ours).data == "b"
        theirs.send(b"x")
        ((key, _),) = quick.select(1)
        assert key.fileobj is ours
        quick.unregister(ours)
        with pytest.raises(KeyError):
            quick.get_key(ours)


def test_an_unknown_socket_is_refused_without_asking_it_for_its_name(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def expensive(self: socket.socket) -> str:
        raise AssertionError("four system calls")

    monkeypatch.setattr(socket.socket, "__repr__", expensive)
    with FastLookupSelector() as quick, pytest.raises(KeyError):
        quick.get_key(pair[0])


def test_a_closed_socket_leaves_nothing_behind(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    with FastLookupSelector() as quick:
        quick.register(ours, selectors.EVENT_READ)
        ours.close()
        quick.unregister(ours)
        assert not quick.get_map()
        with pytest.raises(KeyError):
            quick.get_key(ours)


def test_a_key_refused_by_the_standard_one_is_not_kept(pair: tuple[socket.socket, socket.socket]) -> None:
    with FastLookupSelector() as quick:
        with pytest.raises(ValueError, match="Invalid events"):
            quick.register(pair[0], 0)
        with pytest.raises(KeyError):
            quick.get_key(pair[0])
