"""Certificates and the clients' CA are replaced while a server runs, on a real uvicorn."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvicorn.config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bentos.asgi import send_answer
from bentos.compat import uvicorn_tls
from tests.serving_fixtures import free_tcp_port
from tests.unit.bentos.compat.running_uvicorn import running_uvicorn


class Issued:
    """A certificate, self-signed or by another one, in files below `folder`."""

    def __init__(self, folder: Path, name: str, issuer: "Issued | None" = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name((issuer or self).name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        )
        signed = builder.sign((issuer or self).key, hashes.SHA256())
        self.certificate = signed.public_bytes(serialization.Encoding.PEM)
        self.private = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.private + self.certificate)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send_answer(send, 200, [], b"x")


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[int]:
    port = free_tcp_port()
    config = uvicorn.Config(
        *(answer,),
        port=port,
        log_level="critical",
        lifespan="off",
        ssl_certfile=folder / "served.crt",
        ssl_keyfile=folder / "served.key",
        **options,
    )
    async with running_uvicorn(config):
        yield port


def put(folder: Path, issued: Issued) -> None:
    (folder / "served.crt").write_bytes(issued.certificate)
    (folder / "served.key").write_bytes(issued.private)


async def is_answered(port: int, client: Issued | None, trusted: Issued) -> bool:
    """Say whether a request gets an answer over a connection of its own."""
    context = ssl.create_default_context(cafile=str(trusted.file))
    if client is not None:
        context.load_cert_chain(client.file)
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return (await reader.read()).startswith(b"HTTP/1.1 200")
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.config, "create_ssl_context", uvicorn.config.create_ssl_context)
    monkeypatch.setattr(uvicorn_tls, "_served", [])
    uvicorn_tls.install(lambda: None)


async def test_a_certificate_is_replaced_and_one_that_does_not_fit_is_not_taken(tmp_path: Path) -> None:
    first, second = (Issued(tmp_path, name) for name in ("first", "second"))
    put(tmp_path, first)
    async with serving(tmp_path) as port:
        assert await is_answered(port, None, trusted=first)
        put(tmp_path, second)
        uvicorn_tls.reload_changed()
        assert await is_answered(port, None, trusted=second)
        assert not await is_answered(port, None, trusted=first)
        (tmp_path / "served.key").write_bytes(first.private)
        uvicorn_tls.reload_changed()
        assert await is_answered(port, None, trusted=second)


async def test_a_ca_that_was_taken_away_lets_nobody_in_any_more(tmp_path: Path) -> None:
    served = Issued(tmp_path, "server")
    put(tmp_path, served)
    old_ca, new_ca = (Issued(tmp_path, name) for name in ("old-ca", "new-ca"))
    old, new = Issued(tmp_path, "old", old_ca), Issued(tmp_path, "new", new_ca)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(old_ca.certificate)

    async def let_in(port: int) -> list[bool]:
        return [await is_answered(port, client, trusted=served) for client in (old, new, None)]

    async with serving(tmp_path, ssl_ca_certs=str(clients), ssl_cert_reqs=ssl.CERT_REQUIRED) as port:
        assert await let_in(port) == [True, False, False]
        clients.write_bytes(old_ca.certificate + new_ca.certificate)
        uvicorn_tls.reload_changed()
        assert await let_in(port) == [True, True, False]
        clients.write_bytes(new_ca.certificate)
        uvicorn_tls.reload_changed()
        assert await let_in(port) == [False, True, False]
        clients.write_bytes(b"no certificate")
        uvicorn_tls.reload_changed()
        assert await let_in(port) == [False, True, False]
