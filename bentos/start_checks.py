"""What must hold before the port is bound: otherwise ``bentoml serve`` ends with 2 and one sentence."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from bentos.compat.serve_command import longest_temporary_folder, serve_flags, temporary_folder
from bentos.compat.uvicorn_tls import load_pair
from bentos.errors import SettingsError
from bentos.gateway.auth import read_keys
from bentos.settings.load import Settings
from bentos.settings.secrets import read_secret
from bentos.settings.sections import TlsSettings


def check_start(settings: Settings) -> None:
    """Return if a service could serve with `settings`; outside of ``bentoml serve`` nothing is checked.

    Raises
    ------
    SettingsError
        If a file of keys or certificates cannot be used, the temporary folder has too long a name, or the
        port is taken.
    """
    flags = serve_flags()
    if flags is None:
        return
    read_keys(settings.security)
    _check_tls(settings.security.tls)
    _check_temporary_folder()
    _check_port(flags.host or settings.host, settings.port if flags.port is None else flags.port)


def _check_tls(tls: TlsSettings) -> None:
    if tls.certificate_file is None:
        return
    for name in ("certificate_file", "key_file", "client_ca_file"):
        path: Path | None = getattr(tls, name)
        if path is not None and not path.is_file():
            raise SettingsError(f"security.tls.{name}: there is no file {path}.")
    password = read_secret(tls.key_password, tls.key_password_file, "security.tls.key_password_file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        load_pair(context, str(tls.certificate_file), str(tls.key_file), password)
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"security.tls: certificate, key, password or CA cannot be used: {error}."
        ) from None


def _check_temporary_folder() -> None:
    folder, limit = temporary_folder(), longest_temporary_folder()
    if len(folder) > limit:
        raise SettingsError(
            f"the temporary folder {folder} (TMPDIR) has too long a name for the runners' sockets: at most "
            f"{limit} characters."
        )


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SettingsError(f"port {port} on {host} cannot be used: {reason}. Choose another.") from None
