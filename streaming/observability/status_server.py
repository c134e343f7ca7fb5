"""The bridge over HTTP: ``/metrics``, ``/livez``, ``/readyz``."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streaming.errors import SettingsError
from streaming.observability.health import Health
from streaming.observability.metrics import Metrics
from streaming.settings.sections import MetricsSettings


class StatusServer:
    """Serves health and metrics on a thread of its own.

    Parameters
    ----------
    settings : MetricsSettings
    metrics : Metrics
    health : Health

    Raises
    ------
    SettingsError
        If the port cannot be bound.
    """

    def __init__(self, settings: MetricsSettings, metrics: Metrics, health: Health) -> None:
        try:
            self._server = ThreadingHTTPServer((settings.host, settings.port), _handler(metrics, health))
        except OSError as error:
            message = f"The metrics server cannot bind {settings.host}:{settings.port} ({error.strerror}): "
            raise SettingsError(message + "choose another --metrics-port, or 0 for none.") from error
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


def _handler(metrics: Metrics, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers the three paths."""

        timeout = 10

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif path == "/livez":
                self._answer_health(health.liveness_failure())
            elif path == "/readyz":
                self._answer_health(health.readiness_failure())
            else:
                self._answer(404, b"not found: /metrics, /livez, /readyz\n")

        def _answer_health(self, fault: str | None) -> None:
            self._answer(200 if fault is None else 503, f"{fault or 'ok'}\n".encode())

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep requests out of the log."""

    return Handler
