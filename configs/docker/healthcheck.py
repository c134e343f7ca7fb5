"""Exit 0 when a path on a port of this container answers 200: the images hold neither curl nor wget.

python healthcheck.py PORT [PATH]

Where the service has been told to answer health with a key only, or clients with a certificate only, this
has neither: an answer that says so, or a port that takes connections, is then all that can be known.
"""

import http.client
import os
import socket
import ssl
import sys

# What moves the port of a service or a bridge away from the one its image names.
PORTS = ("SERVING__PORT", "STREAMING__METRICS__PORT", "STREAMING__MONITOR__PORT")
TLS = "SERVING__SECURITY__TLS__"


def is_ready(port: int, path: str = "/readyz") -> bool:
    """Ask the loopback address; over TLS when the service was given a certificate."""
    try:
        if os.environ.get(f"{TLS}CLIENT_CA_FILE"):
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return True
        connection = _connection(port)
        connection.request("GET", path)
        return connection.getresponse().status in (http.HTTPStatus.OK, http.HTTPStatus.UNAUTHORIZED)
    except (OSError, http.client.HTTPException):
        return False


def _connection(port: int) -> http.client.HTTPConnection:
    if not os.environ.get(f"{TLS}CERTIFICATE_FILE"):
        return http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    # The certificate names the public host, not this address, and the answer carries no secret.
    context = ssl._create_unverified_context()  # noqa: S323
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)


if __name__ == "__main__":
    named = next((os.environ[name] for name in PORTS if os.environ.get(name)), sys.argv[1])
    # 0: a bridge without metrics server; that it runs is all there is to know.
    sys.exit(0 if named == "0" or is_ready(int(named), *sys.argv[2:3]) else 1)
