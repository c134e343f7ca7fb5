"""The two kinds of BentoML service this package makes, configured from `bentos.settings` when they start.

BentoML asks a service for its configuration and its ASGI application; both are answered here, so that plain
``bentoml serve`` gets every setting with no variable set, and importing a module still reads no file.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn, cast

from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]
from _bentoml_sdk.service import Service  # type: ignore[import-untyped]
from bentoml._internal.marshal.dispatcher import CorkDispatcher, Optimizer
from bentoml.models import BentoModel

from bentos.asgi import Application, Receive, Scope, Send
from bentos.compat import metrics_dir as metrics_folder
from bentos.compat import uvicorn_single_write as cork
from bentos.errors import ReleaseError
from bentos.gateway.app import FrontDoor, Gateway
from bentos.gateway.openapi import document
from bentos.release import find_release, hand_down
from bentos.rpc.client import LocalScorer as Runner
from bentos.rpc.server import RunnerDoor, freezing
from bentos.settings import RunnerSettings, Settings, TlsSettings, load_settings

# Spans that nobody exports cost 1.7x the throughput.
UNTRACED = {"excluded_urls": ".*"}
QUIET = {"access": {"enabled": False}}
# Longer than any request of ours may take: the gateway's own deadline answers first, with a 503.
BACKSTOP_S = 120
# How often a dispatcher looks whether the model is free; BentoML's own 1 ms is longer than a batch takes.
TICKET_S = 0.0002
# BentoML's default string means TLS 1.0 ciphers.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class ConfiguredService(Service[Any]):  # type: ignore[misc]  # BentoML ships no types
    """A service whose BentoML configuration comes from our settings."""

    def inject_config(self) -> None:
        """Configure this service and those it depends on, then BentoML itself."""
        settings = load_settings()
        for service in self.all_services().values():
            if isinstance(service, ConfiguredService):
                service.configure(settings)
        super().inject_config()

    def configure(self, settings: Settings) -> None:
        """Take what is meant for this service from `settings`."""
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

    def __call__(self) -> Runner:
        """Make the instance; ``score`` is looked up once, for BentoML builds it anew at each look: 25 µs."""
        instance: Runner = super().__call__()
        instance.score = instance.score  # type: ignore[method-assign]
        return instance

    def to_asgi(self, is_main: bool = True) -> Application:
        """Return the application uvicorn serves: ours for scores, BentoML's for the rest."""
        cork.install()
        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        _bound_wait(factory.dispatchers["score"], self._settings(load_settings()).max_wait_ms)
        return RunnerDoor(factory(), factory.batch_infer)

    def _settings(self, settings: Settings) -> RunnerSettings:
        return {"NeuralNetRunner": settings.neural_net, "XGBoostRunner": settings.xgboost}[self.name]


class GatewayService(ConfiguredService):
    """The public service: our front door before BentoML's application."""

    def configure(self, settings: Settings) -> None:
        """Set address, TLS and workers, and settle which release every process loads."""
        super().configure(settings)
        # In a container BentoML would not start a dead runner again; ours comes back everywhere.
        os.environ.pop("BENTOML_CONTAINERIZED", None)
        metrics_folder.choose()
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
            release = find_release(settings.release)
        except ReleaseError as error:
            _give_up(str(error), status=1)
        hand_down(release)
        # What `bentoml build` packs: the pair, never the newest of each.
        self.models = [BentoModel(release.neural_net_tag), BentoModel(release.xgboost_tag)]

    def __call__(self) -> Gateway:
        """Make the instance and keep it for the front door."""
        instance: Gateway = super().__call__()
        self.instance = instance
        return instance

    def to_asgi(self, is_main: bool = True) -> Application:
        """Return the application uvicorn serves."""
        cork.install()
        application = super().to_asgi(is_main)
        try:
            door = FrontDoor(application, load_settings(), lambda: self.instance)
        except (OSError, ValueError) as error:
            _give_up(f"API keys: {error}", status=2)

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await door(scope, receive, freezing(send) if scope["type"] == "lifespan" else send)

        return serve

    @property
    def openapi_spec(self) -> dict[str, Any]:
        """Return our document, as ``bentoml build`` stores it."""
        return document(load_settings())


class BoundedOptimizer(Optimizer):
    """BentoML's estimate of a batch's cost, with the wait it learns from a burst bounded.

    Learned, the wait stays for hours: after a burst one connection waited 100 ms for company that never came.
    """

    max_wait_s = 0.0

    @property  # type: ignore[override]  # declared int, used as seconds
    def wait(self) -> float:
        """Seconds an idle model waits for more rows."""
        return min(self._wait, self.max_wait_s)

    @wait.setter
    def wait(self, learned: float) -> None:
        self._wait = learned


def url_of(service: object) -> str | None:
    """Return where the service a decorator made is served; None if in this process."""
    return cast("str | None", service.url)  # type: ignore[attr-defined]  # a class only to the type checker


def _bound_wait(dispatcher: CorkDispatcher[Any, Any], max_wait_ms: float) -> None:
    dispatcher.optimizer = BoundedOptimizer(dispatcher.max_latency)
    dispatcher.optimizer.max_wait_s = max_wait_ms / 1000
    dispatcher.TICKET_INTERVAL = TICKET_S


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
