"""A closed service: keys from a file, TLS, small limits, slow callers; and the log of it all."""

import json
import re
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.faults import wait_until
from tests.serving_fixtures import Served, encoded, service

JSON = {"content-type": "application/json"}
KEY = {"x-api-key": "second-key"}
PASSWORD = "of-the-tls-key"


def write_certificate(folder: Path, serial: int = 1) -> None:
    """Write a self-signed certificate for the loopback address, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD.encode()),
        )
    )


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Return a context that trusts the certificate of the closed service alone."""
    folder = tmp_path_factory.mktemp("tls")
    write_certificate(folder)
    context = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
    context.folder = folder  # type: ignore[attr-defined]
    return context


@pytest.fixture(scope="module")
def closed(small_home: Path, trusted: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve over TLS with keys, small limits and the access log on."""
    (trusted.folder / "keys").write_text("first-key\nsecond-key\n")
    (trusted.folder / "password").write_text(PASSWORD)
    variables = {
        "SERVING__SECURITY__TLS__CERTIFICATE_FILE": f"{trusted.folder}/certificate.pem",
        "SERVING__SECURITY__TLS__KEY_FILE": f"{trusted.folder}/key.pem",
        "SERVING__SECURITY__TLS__KEY_PASSWORD_FILE": f"{trusted.folder}/password",
        "SERVING__SECURITY__API_KEYS_FILE": f"{trusted.folder}/keys",
        "SERVING__SECURITY__OPEN_METRICS": "false",
        "SERVING__REQUEST__MAX_BODY_BYTES": "5000",
        "SERVING__REQUEST__MAX_TRANSACTIONS": "3",
        "SERVING__REQUEST__BODY_TIMEOUT_S": "0.5",
        "SERVING__LOG__ACCESS": "true",
    }
    log = tmp_path_factory.mktemp("closed") / "service.log"
    with service(small_home, log, variables, scheme="https", verify=trusted) as running:
        yield running


@pytest.fixture
def client(closed: Served, trusted: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=closed.url, verify=trusted, timeout=20) as opened:
        yield opened


def test_two_services_on_one_store_count_apart(served: Served, client: httpx.Client) -> None:
    def refused(text: str) -> float:
        found = re.search(r'fraud_requests_total{status="413"} (\S+)', text)
        return float(found.group(1)) if found else 0.0

    before = refused(httpx.get(f"{served.url}/metrics", timeout=10).text)
    assert client.post("/classify", content=b"x" * 9000, headers={**JSON, **KEY}).status_code == 413
    assert refused(client.get("/metrics", headers=KEY).text) >= 1
    assert refused(httpx.get(f"{served.url}/metrics", timeout=10).text) == before


def test_keys_open_and_nothing_else_does(client: httpx.Client, transaction: dict[str, Any]) -> None:
    def status(headers: dict[str, str]) -> int:
        answer = client.post("/classify", content=encoded(transaction), headers={**JSON, **headers})
        if answer.status_code == 401:
            assert answer.json() == {"error": "unauthorized", "detail": []}
            assert answer.headers["www-authenticate"] == "Bearer"
        return answer.status_code

    assert status({}) == status({"x-api-key": "wrong"}) == status({"authorization": "Basic x"}) == 401
    assert status(KEY) == status({"authorization": "Bearer first-key"}) == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [("/info", 401), ("/metrics", 401), ("/livez", 200), ("/readyz", 200), ("/docs.json", 200), ("/", 200)],
)
def test_what_is_open_without_a_key(client: httpx.Client, path: str, status: int) -> None:
    assert client.get(path).status_code == status
    assert client.get(path, headers=KEY).status_code == 200


def test_limits_are_enforced_and_documented(client: httpx.Client, transaction: dict[str, Any]) -> None:
    def status(body: Any) -> int:
        return client.post("/classify", content=encoded(body), headers={**JSON, **KEY}).status_code

    assert status([transaction] * 3) == 200
    assert status([transaction] * 4) == 413
    assert status({**transaction, "note": "x" * 5000}) == 413
    operation = client.get("/docs.json").json()["paths"]["/classify"]["post"]
    many = operation["requestBody"]["content"]["application/json"]["schema"]["oneOf"][1]
    assert many["maxItems"] == 3


def test_a_slow_body_is_408(client: httpx.Client) -> None:
    def slowly() -> Iterator[bytes]:
        yield b'{"V1": '
        time.sleep(1.5)
        yield b"1}"

    try:
        answer = client.post("/classify", content=slowly(), headers={**JSON, **KEY})
    except httpx.WriteError:
        return  # the service had closed before the rest was sent
    assert answer.status_code == 408


def test_plain_http_gets_nothing(closed: Served) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(closed.url.replace("https", "http") + "/livez", timeout=5)


def test_old_tls_is_refused(closed: Served, trusted: Any) -> None:
    old = ssl.create_default_context(cafile=str(trusted.folder / "certificate.pem"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("AES128-SHA:AES256-SHA:@SECLEVEL=0")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{closed.url}/livez", verify=old, timeout=5)


def test_the_access_log_has_a_line_per_request_and_no_secret(
    closed: Served, client: httpx.Client, transaction: dict[str, Any]
) -> None:
    marked = {**transaction, "transaction_id": "card-4929123412341234", "Amount": 7777.77}
    answer = client.post("/classify?explain=true", content=encoded(marked), headers={**JSON, **KEY})
    assert answer.status_code == 200
    text = closed.log.read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    last = lines[-1]
    assert (last["event"], last["path"], last["status"], last["transactions"]) == (
        "request",
        "/classify",
        200,
        1,
    )
    assert last["duration_ms"] > 0
    for secret in ("4929123412341234", "7777.77", "first-key", "second-key"):
        assert secret not in text


def test_the_password_of_the_key_is_in_no_list_of_processes(closed: Served) -> None:
    service = psutil.Process(closed.process.pid)
    for process in (service, *service.children(recursive=True)):
        assert PASSWORD not in " ".join(process.cmdline())


def test_certificates_and_keys_change_without_a_restart(
    closed: Served, trusted: Any, transaction: dict[str, Any]
) -> None:
    def serial() -> int:
        port = urlsplit(closed.url).port
        pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    def status(key: str) -> int:
        return httpx.get(
            f"{closed.url}/info", headers={"x-api-key": key}, verify=False, timeout=10
        ).status_code

    assert (serial(), status("third-key")) == (1, 401)
    write_certificate(trusted.folder, serial=2)
    (trusted.folder / "keys").write_text("first-key\nsecond-key\nthird-key\n")
    wait_until(lambda: serial() == 2, 10, "the new certificate is not served")
    wait_until(lambda: status("third-key") == 200, 10, "the new key does not open")
    (trusted.folder / "certificate.pem").write_text("no certificate")
    time.sleep(1.5)  # longer than the service takes to look
    assert serial() == 2, "what cannot be used changes nothing"
