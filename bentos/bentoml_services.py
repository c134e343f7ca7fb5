"""The two kinds of BentoML service in this package, configured from `bentos.settings` when they start.

BentoML asks a service for its configuration and its ASGI application; both are answered here, so that plain
``bentoml serve`` gets every setting with no variable set, and importing a module still reads no file.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn, cast

from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]
from _bentoml_sdk.service import Service  # type: ignore[import-untyped]
from bentoml.models import BentoModel

from bentos.asgi import Application, Receive, Scope, Send
from bentos.compat import uvicorn_single_write
from bentos.compat.bounded_optimizer import bound_wait
from bentos.compat.gc_freeze import freeze_after_startup
from bentos.compat.metrics_dir import use_own_metrics_dir
from bentos.compat.startup_check import check_all_assumptions
from bentos.errors import StartError
from bentos.gateway.app import GatewayApp, GatewayBackend
from bentos.gateway.openapi import document
from bentos.release import find_release, hand_down
from bentos.rpc.scorer import RunnerInstance
from bentos.rpc.server import RunnerApp
from bentos.settings.load import Settings, process_settings
from bentos.settings.sections import RunnerSettings, TlsSettings

# Recording spans that are exported nowhere costs 1.7x the throughput.
UNTRACED = {"excluded_urls": ".*"}
QUIET = {"access": {"enabled": False}}
# Longer than any request may take: the gateway's own deadline answers first, with a 503.
BACKSTOP_S = 120
# BentoML's default string means TLS 1.0 ciphers.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class ConfiguredService(Service[Any]):  # type: ignore[misc]  # BentoML ships no types
    """A service whose BentoML configuration comes from our settings."""

    def inject_config(self) -> None:
        """Configure this service and those it depends on, then BentoML itself."""
        settings = process_settings()
        for service in self.all_services().values():
            if isinstance(service, ConfiguredService):
                service.configure(settings)
        super().inject_config()

    def configure(self, settings: Settings) -> None:
        """Pass on to BentoML what `settings` say about this service."""
        self.config.update({"tracing": UNTRACED, "logging": QUIET, "traffic": {"timeout": BACKSTOP_S}})


class RunnerService(ConfiguredService):
    """Owns one model; its ``score`` is batched adaptively by BentoML."""

    def configure(self, settings: Settings) -> None:
        """Set batch sizes, latency bound and workers."""
        super().configure(settings)
        runner = self._settings(settings)
        self.config.update({"workers": runner.workers, "threads": 1})
        score = self.apis["score"]
        score.max_batch_size, score.max_latency_ms = runner.max_batch_rows, runner.max_latency_ms

    def __call__(self) -> RunnerInstance:
        """Make the instance, and look ``score`` up once: BentoML builds it at each access, in 25 µs."""
        instance: RunnerInstance = super().__call__()
        instance.score = instance.score  # type: ignore[method-assign]
        return instance

    def to_asgi(self, is_main: bool = True) -> Application:
        """Return the application that uvicorn serves: ours for scores, BentoML's for the rest."""
        uvicorn_single_write.install()
        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        bound_wait(factory.dispatchers["score"], self._settings(process_settings()).max_wait_ms)
        return RunnerApp(factory(), factory.batch_infer)

    def _settings(self, settings: Settings) -> RunnerSettings:
        return {"NeuralNetRunner": settings.neural_net, "XGBoostRunner": settings.xgboost}[self.name]


class GatewayService(ConfiguredService):
    """The public service: our ASGI application in front of BentoML's."""

    def configure(self, settings: Settings) -> None:
        """Set address, TLS and workers, and settle which release every process loads."""
        super().configure(settings)
        # In a container BentoML (1.4.40) does not start a dead runner again unless this variable is absent.
        os.environ.pop("BENTOML_CONTAINERIZED", None)
        self.config.update(
            {
                "workers": settings.gateway.workers,
                "http": {"host": settings.host, "port": settings.port},
                # Readiness asks the runners itself, over connections that are there anyway.
                "runner_probe": {"enabled": False},
                "ssl": _ssl(settings.security.tls),
            }
        )
        try:
            check_all_assumptions()
            release = find_release(settings.release)
        except StartError as error:
            _give_up(str(error), error.exit_code)
        use_own_metrics_dir()
        hand_down(release)
        # What `bentoml build` packs: the pair, never the newest of each.
        self.models = [BentoModel(release.neural_net_tag), BentoModel(release.xgboost_tag)]

    def __call__(self) -> GatewayBackend:
        """Make the instance and keep it for the gateway's application."""
        instance: GatewayBackend = super().__call__()
        self.instance = instance
        return instance

    def to_asgi(self, is_main: bool = True) -> Application:
        """Return the application that uvicorn serves."""
        uvicorn_single_write.install()
        application = super().to_asgi(is_main)
        try:
            gateway = GatewayApp(application, process_settings(), lambda: self.instance)
        except (OSError, ValueError) as error:
            _give_up(f"API keys: {error}", status=2)

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await gateway(scope, receive, freeze_after_startup(send) if scope["type"] == "lifespan" else send)

        return serve

    @property
    def openapi_spec(self) -> dict[str, Any]:
        """Return our document, as ``bentoml build`` stores it."""
        return document(process_settings())


def url_of(service: object) -> str | None:
    """Return where the service a decorator made is served; None if in this process."""
    return cast("str | None", service.url)  # type: ignore[attr-defined]  # a class only to the type checker


def _ssl(tls: TlsSettings) -> dict[str, Any]:
    if tls.certificate_file is None:
        return {"enabled": False}
    config: dict[str, Any] = {
        "enabled": True,
        "certfile": str(tls.certificate_file),
        "keyfile": str(tls.key_file),
        "ciphers": CIPHERS,
    }
    password = _key_password(tls)
    if password is not None:
        config["keyfile_password"] = password
    if tls.client_ca_file is not None:
        config |= {"ca_certs": str(tls.client_ca_file), "cert_reqs": 2}  # ssl.CERT_REQUIRED
    return config


def _key_password(tls: TlsSettings) -> str | None:
    if tls.key_password_file is None:
        return tls.key_password.get_secret_value() if tls.key_password else None
    try:
        return tls.key_password_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        _give_up(f"The password of the TLS key: {error}", status=2)


def _give_up(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    raise SystemExit(status)
