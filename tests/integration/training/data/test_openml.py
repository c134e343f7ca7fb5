"""Fetching from a local HTTP server that behaves, lies, stalls, breaks off or is not there."""

import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.factories import make_frame
from training.data import openml as module
from training.data.openml import CACHED, NAME, fetch, find_data
from training.data.transactions import from_frame, load_transactions
from training.errors import FetchError

FRAME = make_frame(300)
EXPECTED = (300, int(FRAME["Class"].sum()))


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> bytes:
    """The file as OpenML publishes it: Class is text in a dictionary."""
    path = tmp_path_factory.mktemp("published") / "dataset.pq"
    FRAME.assign(Class=FRAME["Class"].astype(str).astype("category")).to_parquet(path)
    return path.read_bytes()


class Server(ThreadingHTTPServer):
    answer: Callable[[BaseHTTPRequestHandler], None]
    requests = 0
    daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dataset.pq"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def send(
    body: bytes, *, length: int | None = None, status: int = 200
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_it_is_fetched_once_checked_and_kept(server, published, tmp_path):
    server.answer = send(published)
    folder = tmp_path / "new" / "data"
    path = fetch(folder, url=server.url, expected=EXPECTED)
    assert path == folder / CACHED
    assert load_transactions(path).fingerprint == from_frame(FRAME, "same").fingerprint
    assert fetch(folder, url=server.url, expected=EXPECTED) == path
    assert server.requests == 1
    assert [item.name for item in folder.iterdir()] == [CACHED]


def test_progress_is_shown_on_a_console(server, published, tmp_path):
    import io

    from rich.console import Console

    server.answer = send(published)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    fetch(tmp_path, url=server.url, expected=EXPECTED, console=console)
    assert NAME in console.file.getvalue()
    assert "100%" in console.file.getvalue() or "/" in console.file.getvalue()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (send(b"", status=404), "Not Found"),
        (send(b"x" * 10, length=1000), r"after 10 of 1,000 bytes|IncompleteRead"),
        (send(b"<html>please log in</html>"), "did not send the ULB set as parquet"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "could not be fetched"),
    ],
    ids=["missing", "broken off", "something else", "reset"],
)
def test_a_server_that_sends_something_else(server, tmp_path, answer, reason):
    server.answer = answer
    with pytest.raises(FetchError, match=reason):
        fetch(tmp_path, url=server.url, timeout_s=2)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_is_not_kept(server, published, tmp_path):
    server.answer = send(published)
    with pytest.raises(FetchError, match=r"sent 300 rows with \d+ frauds instead of 284,807 with 492"):
        fetch(tmp_path, url=server.url)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_time_is_not_kept(server, tmp_path):
    FRAME.drop(columns="Time").to_parquet(tmp_path / "x.parquet")
    server.answer = send((tmp_path / "x.parquet").read_bytes())
    with pytest.raises(FetchError, match="did not send the ULB set"):
        fetch(tmp_path / "cache", url=server.url)


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"], ids=["silent", "stalls"]
)
def test_a_server_that_hangs_is_given_up_in_time(server, tmp_path, part):
    release = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.sendall(part)
        release.wait(20)

    server.answer = answer
    start = time.monotonic()
    try:
        with pytest.raises(FetchError, match=r"could not be fetched \((timed out|no answer)"):
            fetch(tmp_path, url=server.url, timeout_s=0.3)
    finally:
        release.set()
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_takes_for_ever_to_resolve_is_given_up_in_time(tmp_path, monkeypatch):
    release = threading.Event()

    def hang(*_: object, **__: object) -> None:
        release.wait(20)
        raise OSError("released")

    monkeypatch.setattr(module.urllib.request, "urlopen", hang)
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"no answer within 0\.2 s"):
        fetch(tmp_path, url="http://example.invalid/x", timeout_s=0.2)
    release.set()
    assert time.monotonic() - start < 5


def test_a_download_that_crawls_ends_at_the_deadline(server, tmp_path):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000)

    server.answer = answer
    with pytest.raises(FetchError, match="not done after 0 s"):
        fetch(tmp_path, url=server.url, deadline_s=0)


def test_a_slow_line_is_told_while_it_waits(server, published, tmp_path):
    """Told before the deadline, so that the user can raise it or name a file; told once."""
    told = []

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(published)))
        handler.end_headers()
        for start in range(0, len(published), 100):
            if told:  # the rest at once
                handler.wfile.write(published[start:])
                return
            handler.wfile.write(published[start : start + 100])
            time.sleep(0.05)

    server.answer = drip
    fetch(tmp_path, url=server.url, expected=EXPECTED, deadline_s=5, say=told.append)
    (sentence,) = told
    assert "the line is slow" in sentence and "TRAINING__FETCH__DEADLINE_S" in sentence


def test_nobody_listening_is_noticed_at_once(tmp_path, free_port_url):
    start = time.monotonic()
    with pytest.raises(FetchError, match="refused"):
        fetch(tmp_path, url=free_port_url)
    assert time.monotonic() - start < 3


@pytest.fixture
def free_port_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}/x"


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "ftp://example.invalid/x"])
def test_only_http_is_fetched(tmp_path, url):
    with pytest.raises(FetchError, match="no http address"):
        fetch(tmp_path, url=url)


# --- which data is used when none is named


@pytest.fixture
def few_rows(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 2_000)


def test_a_file_in_the_folder_comes_first(tmp_path):
    FRAME.to_csv(tmp_path / "creditcard.csv", index=False)
    data = find_data(tmp_path, seed=1, url="")
    assert (data.name, len(data)) == ("creditcard.csv", 300)


def test_the_kept_copy_comes_next_and_needs_no_network(tmp_path):
    FRAME.to_parquet(tmp_path / CACHED)
    data = find_data(tmp_path, seed=1, url="")
    assert (data.name, len(data)) == (NAME, 300)


def test_the_simulator_comes_last_and_the_reason_is_told(tmp_path, free_port_url, few_rows):
    told: list[str] = []
    data = find_data(tmp_path, seed=5, url=free_port_url, say=told.append)
    assert (data.name, len(data)) == ("simulated transactions (seed 5)", 2_000)
    assert data.fingerprint == find_data(tmp_path, seed=5, url="").fingerprint
    assert len(told) == 1
    assert "could not be fetched" in told[0]
