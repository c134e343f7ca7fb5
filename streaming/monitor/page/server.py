"""The monitor over HTTP: the page, its data, metrics and health."""

from functools import partial
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector

from streaming.monitor.page.exposition import QualityCollector
from streaming.monitor.page.view import View
from streaming.observability.status_server import (
    Answer,
    StatusServer,
    answer_health,
    answer_metrics,
)

FOLDER = Path(__file__).parent / "files"
# Path to file and type. Nothing else of the folder is served.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/uplot.js": ("uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/uplot.css": ("uPlot.min.css", "text/css; charset=utf-8"),
}
HEADERS = {
    # The page makes no outside request, whatever a release is called.
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self' 'unsafe-inline'",
            "connect-src 'self'",
            "img-src data:",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def serve_page(host: str, port: int, view: View) -> StatusServer:
    """Serve the page, ``/quality.json``, ``/metrics``, ``/livez`` and ``/readyz``.

    Raises
    ------
    SettingsError
        If the port cannot be bound.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(QualityCollector(view))
    ProcessCollector(registry=registry)
    routes = {path: partial(_answer_file, *file) for path, file in FILES.items()} | {
        "/quality.json": lambda: Answer(200, msgspec.json.encode(view.document()), "application/json"),
        "/metrics": lambda: answer_metrics(registry),
        "/livez": lambda: answer_health(view.liveness_failure()),
        "/readyz": lambda: answer_health(view.readiness_failure()),
    }
    return StatusServer(host, port, routes, "choose another --port", HEADERS)


def _answer_file(name: str, kind: str) -> Answer:
    return Answer(200, (FOLDER / name).read_bytes(), kind)
