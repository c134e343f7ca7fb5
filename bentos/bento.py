"""The two kinds of BentoML service this package makes, configured from `bentos.settings` when they start.

BentoML asks a service for its configuration and its ASGI application; both are answered here, so that plain
``bentoml serve`` gets every setting with no variable set, and importing a module still reads no file.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from _bentoml_sdk.service import Service

from bentos.decoding import Decoder
from bentos.errors import ReleaseError
from bentos.front_door import Application, FrontDoor
from bentos.release import describe, find_release, hand_down
from bentos.settings import RunnerSettings, Settings, load_settings

if TYPE_CHECKING:
    from bentos.service import FraudDetection as Gateway

# Spans that nobody exports cost 1.7x the throughput.
UNTRACED = {"excluded_urls": ".*"}
QUIET = {"access": {"enabled": False}}
# Longer than any request of ours may take: the gateway's own deadline answers first, with a 503.
BACKSTOP_S = 60


class ConfiguredService(Service[Any]):
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
        runner: RunnerSettings = {
            "NeuralNetRunner": settings.neural_net,
            "XGBoostRunner": settings.xgboost,
        }[self.name]
        self.config.update({"workers": runner.workers, "threads": 1})
        score = self.apis["score"]
        score.max_batch_size, score.max_latency_ms = runner.max_batch_rows, runner.max_latency_ms


class GatewayService(ConfiguredService):
    """The public service: our front door before BentoML's application."""

    def configure(self, settings: Settings) -> None:
        """Set address, TLS and workers, and settle which release every process loads."""
        super().configure(settings)
        self.config.update(
            {
                "workers": settings.gateway.workers,
                "http": {"host": settings.host, "port": settings.port},
            }
        )
        try:
            hand_down(find_release(settings.release))
        except ReleaseError as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(1) from None

    def __call__(self) -> Any:
        """Make the instance and keep it for the front door."""
        self.instance: Gateway = super().__call__()
        return self.instance

    def to_asgi(self, is_main: bool = True) -> Application:
        """Return the application uvicorn serves."""
        application = super().to_asgi(is_main)
        request = load_settings().request
        decoder = Decoder(load_settings().limits, request.max_transactions)
        return FrontDoor(
            application,
            request,
            decoder,
            batcher=lambda: self.instance.batcher,
            info=lambda: describe(self.instance.release),
        )
