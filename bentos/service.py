"""FraudDetection: ``POST /classify``, composed of both runners."""

from __future__ import annotations

from typing import Any

import bentoml
import msgspec

from bentos.batching import Batcher
from bentos.bento import GatewayService
from bentos.classifier import Classifier
from bentos.decoding import Decoder
from bentos.hop import LocalRunner, RunnerClient, Scorer
from bentos.release import describe, find_release
from bentos.runners import NeuralNetRunner, XGBoostRunner
from bentos.settings import load_settings


@bentoml.service(name="fraud_detection", service_class=GatewayService)
class FraudDetection:
    """Decides card transactions: approve, review or decline."""

    neural_net = bentoml.depends(NeuralNetRunner)
    xgboost = bentoml.depends(XGBoostRunner)

    def __init__(self) -> None:
        settings = load_settings()
        self.release = find_release(settings.release)
        self._runners = (
            _runner(NeuralNetRunner, "neural_net", lambda: self.neural_net),
            _runner(XGBoostRunner, "xgboost", lambda: self.xgboost),
        )
        self._decoder = Decoder(settings.limits, settings.request.max_transactions)
        classifier = Classifier(self.release, *self._runners, settings.gateway.retry_after_s)
        self.batcher = Batcher(classifier.decide, settings.gateway)

    @bentoml.api
    async def classify(self, payload: Any, /) -> Any:
        """Decide one transaction, or each of a list."""
        transactions, is_single = self._decoder.decode(msgspec.json.encode(payload))
        decisions = msgspec.to_builtins(await self.batcher.submit(transactions))
        return decisions[0] if is_single else decisions

    @bentoml.api
    async def info(self) -> dict[str, Any]:
        """Return what is served: release, tags, thresholds, calibration, lineage and metrics."""
        return describe(self.release)

    async def __is_ready__(self) -> bool:
        """Say whether both runners answer."""
        return all([await runner.is_ready(1.0) for runner in self._runners])


def _runner(service: Any, name: str, local: Any) -> Scorer:
    """Return the way to a runner: over its socket where it has a process of its own."""
    return RunnerClient(name, service.url) if service.url else LocalRunner(local())
