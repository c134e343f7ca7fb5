"""Answers GET requests beside a loop: health and metrics of the bridge, the monitor's page."""

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from streaming.errors import SettingsError
from streaming.observability.health import Health
from streaming.observability.metrics import Metrics
from streaming.settings.sections import MetricsSettings


class Answer(NamedTuple):
    """A response: status, body and its content type."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"


Routes = Mapping[str, Callable[[], Answer]]
"""Path to what answers it, on a thread of the server."""


class StatusServer:
    """Serves on threads of its own.

    Parameters
    ----------
    host : str
    port : int
        0: any free one.
    routes : mapping of str to callable
    headers : mapping of str to str, optional
        Sent with every answer.
    advice : str
        What to do when the port cannot be bound: ends the error's sentence.

    Raises
    ------
    SettingsError
        If the port cannot be bound.
    """

    def __init__(
        self, host: str, port: int, routes: Routes, advice: str, headers: Mapping[str, str] | None = None
    ) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(routes, headers or {}))
        except OSError as error:
            message = f"Port {port} of {host} cannot be bound for health and metrics ({error.strerror})"
            raise SettingsError(f"{message}: {advice}.") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
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


def serve_bridge(settings: MetricsSettings, metrics: Metrics, health: Health) -> StatusServer:
    """Serve ``/metrics``, ``/livez`` and ``/readyz`` of a bridge.

    Raises
    ------
    SettingsError
        If the port cannot be bound.
    """
    routes = {
        "/metrics": lambda: answer_metrics(metrics.registry),
        "/livez": lambda: answer_health(health.liveness_failure()),
        "/readyz": lambda: answer_health(health.readiness_failure()),
    }
    return StatusServer(settings.host, settings.port, routes, "choose another --metrics-port, or 0 for none")


def answer_health(fault: str | None) -> Answer:
    """Answer 200, or 503 with the fault."""
    return Answer(200 if fault is None else 503, f"{fault or 'ok'}\n".encode())


def answer_metrics(registry: CollectorRegistry) -> Answer:
    """Answer with all metrics of a registry."""
    return Answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)


def _handler(routes: Routes, headers: Mapping[str, str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers the routes, and 404 elsewhere."""

        timeout = 10

        def do_GET(self) -> None:
            route = routes.get(self.path.split("?")[0])
            answer = route() if route else Answer(404, f"not found: {', '.join(routes)}\n".encode())
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep requests out of the log."""

    return Handler
