"""Print the alerts that Alertmanager sends here, a line each, until real receivers are named.

python alert_log.py [PORT]
"""

import http.server
import json
import sys
from typing import Any


def lines(path: str, message: dict[str, Any]) -> list[str]:
    """Return a line for each alert of `message`, received at `path` (/page, /ticket)."""
    return [
        f"{path.strip('/')} {alert['status']} {alert['labels'].get('environment', '-')}"
        f" {alert['labels']['alertname']}: {alert['annotations'].get('summary', '')}"
        f" -> {alert['annotations'].get('action', '')}"
        for alert in message["alerts"]
    ]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers 200 once the alerts are printed, 400 where they cannot be read: Alertmanager then says so."""

    def do_POST(self) -> None:
        """Take one message of Alertmanager's webhook."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            found = lines(self.path, json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.send_error(400, f"no message of Alertmanager: {type(error).__name__}")
            return
        sys.stdout.write("".join(f"{line}\n" for line in found))
        sys.stdout.flush()
        self._answer()

    def do_GET(self) -> None:
        """Answer the health check."""
        self._answer()

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print alerts alone."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9095
    # Alertmanager asks from another container; no port of it opens on the host.
    http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()  # noqa: S104
