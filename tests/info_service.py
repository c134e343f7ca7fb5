"""A stand-in for ``GET /info`` of a service: a release's document with a reference of standard normals."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import NormalDist
from typing import Any, Self

from tests.monitored_stream import FEATURES

BINS = 10


def reference() -> dict[str, Any]:
    """Return the reference of the made-up stream: normal features, scores not told."""
    edges = [NormalDist().inv_cdf(number / BINS) for number in range(1, BINS)]
    normal = {"edges": edges, "shares": [1 / BINS] * BINS}
    even = {"edges": [number / BINS for number in range(1, BINS)], "shares": [1 / BINS] * BINS}
    amounts = {
        "edges": [NormalDist(4, 1.5).inv_cdf(n / BINS) for n in range(1, BINS)],
        "shares": [1 / BINS] * BINS,
    }
    amounts["edges"] = [round(2.718281828459045**edge, 6) for edge in amounts["edges"]]
    return {
        "rows": 100_000,
        "features": {name: amounts if name == "Amount" else normal for name in FEATURES},
        "scores": {"neural_net": even, "xgboost": even},
        "fraud_probability": {"edges": [0.05, 0.1], "shares": [0.5, 0.45, 0.05]},
    }


def document(release: str, recall: float = 0.8, precision: float = 0.5) -> dict[str, Any]:
    """Return what a service says of a release."""
    promised = {"recall": recall, "precision": precision, "alarm_rate": 0.05}
    return {
        "release": release,
        "metrics": {
            f"pair.{name}": {"value": value, "low": value, "high": value} for name, value in promised.items()
        },
        "review_cost": 2.0,
        "reference": reference(),
    }


class InfoService:
    """Answers ``GET /info`` of each release at ``/RELEASE/info``."""

    def __init__(self, documents: dict[str, dict[str, Any]]) -> None:
        bodies = {f"/{release}/info": json.dumps(found).encode() for release, found in documents.items()}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = bodies.get(self.path)
                self.send_response(200 if body else 404)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def url(self, release: str) -> str:
        """Return the address for a release."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{release}/info"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
