"""Exit 0 when a path on a port of this container answers 200: the images hold neither curl nor wget.

python healthcheck.py PORT [PATH]
"""

import http.client
import os
import ssl
import sys


def is_ready(port: int, path: str = "/readyz") -> bool:
    """Ask the loopback address; over TLS when the service was given a certificate."""
    connection: http.client.HTTPConnection
    if os.environ.get("SERVING__SECURITY__TLS__CERTIFICATE_FILE"):
        # The certificate names the public host, not this address, and the answer carries no secret.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


if __name__ == "__main__":
    sys.exit(0 if is_ready(int(sys.argv[1]), *sys.argv[2:3]) else 1)
