"""The monitor over HTTP: the page, its data, metrics and health."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from streaming.errors import SettingsError
from streaming.monitor.exposition import QualityCollector
from streaming.monitor.view import View

FOLDER = Path(__file__).parent / "page"
# Path to file and type. Nothing else of the folder is served.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/uplot.js": ("uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/uplot.css": ("uPlot.min.css", "text/css; charset=utf-8"),
}
# The page makes no outside request, whatever a release is called.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "connect-src 'self'",
        "img-src data:",
    )
)


class PageServer:
    """Serves on threads of its own.

    Parameters
    ----------
    host : str
    port : int
        0: any free one.
    view : View

    Raises
    ------
    SettingsError
        If the port cannot be bound.
    """

    def __init__(self, host: str, port: int, view: View) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(QualityCollector(view))
        ProcessCollector(registry=registry)
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(view, registry))
        except OSError as error:
            raise SettingsError(
                f"The monitor cannot bind {host}:{port} ({error.strerror}): choose another --port."
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="page", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)


def _handler(view: View, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers the paths."""

        timeout = 10

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path in FILES:
                name, kind = FILES[path]
                self._answer(200, (FOLDER / name).read_bytes(), kind)
            elif path == "/quality.json":
                self._answer(200, msgspec.json.encode(view.document()), "application/json")
            elif path == "/metrics":
                self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif path in {"/livez", "/readyz"}:
                fault = view.liveness_failure() if path == "/livez" else view.readiness_failure()
                self._answer(200 if fault is None else 503, f"{fault or 'ok'}\n".encode())
            else:
                known = b"not found: /, /quality.json, /metrics, /livez, /readyz\n"
                self._answer(404, known)

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-cache")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep requests out of the log."""

    return Handler
