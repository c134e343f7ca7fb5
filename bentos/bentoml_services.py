"""The two kinds of BentoML service in this package, configured from `bentos.settings` when they start.

BentoML asks a service for its configuration and its ASGI application; both are answered here, so that plain
``bentoml serve`` gets every setting with no variable set, and importing a module still reads no file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, cast

from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]
from _bentoml_sdk.service import Service  # type: ignore[import-untyped]
from bentoml._internal.context import server_context
from bentoml.models import BentoModel

from bentos.asgi import Application, Receive, Scope, Send
from bentos.compat import uvicorn_limits, uvicorn_single_write, uvicorn_tls
from bentos.compat.bounded_optimizer import bound_wait
from bentos.compat.gc_freeze import freeze_after_startup
from bentos.compat.metrics_dir import use_own_metrics_dir
from bentos.compat.model_store import models_folder, models_of_bento, packed_version
from bentos.compat.process_role import is_worker
from bentos.compat.serve_command import report_no_usage
from bentos.compat.startup_check import check_all_assumptions
from bentos.compat.uvicorn_limits import ConnectionLimits
from bentos.errors import SettingsError, StartError
from bentos.gateway.app import GatewayApp, GatewayBackend
from bentos.gateway.openapi import document
from bentos.releases.choice import PACKED_VARIABLE, choose
from bentos.releases.release import read_release
from bentos.releases.setup import process_board
from bentos.releases.store import NEURAL_NET, XGBOOST, ModelStore, StoredPair
from bentos.rows import Rows
from bentos.rpc.codec import ReleaseRows
from bentos.rpc.scorer import RunnerInstance
from bentos.rpc.server import RunnerApp, score_batch
from bentos.settings.load import Settings, process_settings
from bentos.settings.secrets import read_secret
from bentos.settings.sections import RunnerSettings, TlsSettings
from bentos.start_checks import check_start

# Recording spans that are exported nowhere costs 1.7x the throughput.
UNTRACED = {"excluded_urls": ".*"}
QUIET = {"access": {"enabled": False}}
# Longer than any request may take: the gateway's own deadline answers first, with a 503.
BACKSTOP_S = 120
# While a thread reads or loads a release, requests wait for it that long; Python's default is 5 ms.
SWITCH_INTERVAL_S = 0.0005
# BentoML's default string means TLS 1.0 ciphers.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

ScoreBatch = Callable[[Sequence[ReleaseRows]], Awaitable[list[Rows]]]


class ConfiguredService(Service[Any]):  # type: ignore[misc]  # BentoML ships no types
    """A service whose BentoML configuration comes from our settings."""

    def inject_config(self) -> None:
        """Configure this service and those it depends on, then BentoML itself."""
        report_no_usage()
        settings = process_settings()
        for service in self.all_services().values():
            if isinstance(service, ConfiguredService):
                service.configure(settings)
        super().inject_config()

    def configure(self, settings: Settings) -> None:
        """Pass on to BentoML what `settings` say about this service."""
        self.config.update({"tracing": UNTRACED, "logging": QUIET, "traffic": {"timeout": BACKSTOP_S}})

    def __call__(self) -> Any:  # noqa: ANN401  # each service has its own
        """Make the instance, in the process that serves it."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        return super().__call__()


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
        """Make the instance and keep it for the runner's application."""
        instance: RunnerInstance = super().__call__()
        self.instance = instance
        return instance

    def to_asgi(self, is_main: bool = True) -> Application:
        """Return the application that uvicorn serves: ours for scores, BentoML's for the rest."""
        uvicorn_single_write.install()
        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        dispatcher = factory.dispatchers["score"]
        bound_wait(dispatcher, self._settings(process_settings()).max_wait_ms)
        # Made once: BentoML makes it anew for each call of its own route, in 25 µs.
        score = dispatcher(_counted(factory, score_batch))
        return RunnerApp(factory(), score, lambda: self.instance.releases)

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
            if not is_worker():  # a worker would write the histogram that is tried into the metrics
                check_all_assumptions()
                check_start(settings)
            pair = self._find_pair(settings)
        except StartError as error:
            _give_up(str(error), error.exit_code)
        use_own_metrics_dir()
        process_board()
        # What `bentoml build` packs: the pair, never the newest of each.
        self.models = [BentoModel(f"{name}:{pair.version}") for name in (NEURAL_NET, XGBOOST)]

    def _find_pair(self, settings: Settings) -> StoredPair:
        """Return the pair to begin with; a built bento has every process serve what was packed into it."""
        if self.bento is None:
            store = ModelStore(models_folder())
            os.environ.pop(PACKED_VARIABLE, None)
        else:
            store = ModelStore(models_of_bento(self.bento))
            os.environ[PACKED_VARIABLE] = packed_version(self.bento, NEURAL_NET) or "none"
        pair = choose(store, settings.release)
        read_release(store, pair.version, settings.limits)
        return pair

    def __call__(self) -> GatewayBackend:
        """Make the instance and keep it for the gateway's application."""
        instance: GatewayBackend = super().__call__()
        self.instance = instance
        return instance

    def to_asgi(self, is_main: bool = True) -> Application:
        """Return the application that uvicorn serves."""
        settings = process_settings()
        uvicorn_limits.install(
            ConnectionLimits(
                **settings.connections.model_dump(),
                retry_after_s=settings.gateway.retry_after_s,
                on_refusal=self._count_refusal,
            )
        )
        application = super().to_asgi(is_main)
        tls = settings.security.tls
        uvicorn_tls.install(lambda: read_secret(tls.key_password, tls.key_password_file, "security.tls"))
        try:
            return GatewayApp(_frozen_after_startup(application), settings, lambda: self.instance)
        except SettingsError as error:
            _give_up(str(error), error.exit_code)

    def _count_refusal(self, reason: str) -> None:
        self.instance.metrics.count_refusal(reason)

    @property
    def openapi_spec(self) -> dict[str, Any]:
        """Return our document, as ``bentoml build`` stores it."""
        return document(process_settings())


def _frozen_after_startup(application: Application) -> Application:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await application(scope, receive, freeze_after_startup(send) if scope["type"] == "lifespan" else send)

    return serve


def _counted(factory: ServiceAppFactory, score: ScoreBatch) -> ScoreBatch:
    """Return `score` that also counts its batches, as BentoML's own route does."""
    batch_sizes = None

    async def counted(batch: Sequence[ReleaseRows]) -> list[Rows]:
        nonlocal batch_sizes
        if batch_sizes is None:
            batch_sizes = factory.adaptive_batch_size_hist.labels(
                runner_name=factory.service.name,
                worker_index=server_context.worker_index,
                method_name="score",
                service_version=server_context.bento_version,
                service_name=server_context.bento_name,
            )
        batch_sizes.observe(sum(map(len, batch)))
        return await score(batch)

    return counted


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
    if tls.client_ca_file is not None:
        config |= {"ca_certs": str(tls.client_ca_file), "cert_reqs": 2}  # ssl.CERT_REQUIRED
    return config


def _give_up(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    raise SystemExit(status)
