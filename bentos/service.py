"""FraudDetection: ``POST /classify``, composed of both runners."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import bentoml
import msgspec

from bentos.bentoml_services import GatewayService, url_of
from bentos.classify.batching import Batcher
from bentos.classify.classifier import Classifier
from bentos.classify.decoding import Decoder
from bentos.classify.explainer import Explainer
from bentos.classify.handler import Desk
from bentos.gateway.openapi import PAGE, document
from bentos.metrics import Metrics
from bentos.release import describe, find_release
from bentos.rpc.client import LocalRunner, RunnerClient, Scorer
from bentos.rpc.codec import api, on_shutdown, on_startup
from bentos.runners import NeuralNetRunner, XGBoostRunner
from bentos.settings import load_settings

Payload = Any
"""One JSON object or a list of them."""
READY_TIMEOUT_S = 1.0
HAND_OVER_S = 1.0


@bentoml.service(name="fraud_detection", service_class=GatewayService)
class FraudDetection:
    """Decides card transactions: approve, review or decline."""

    neural_net = bentoml.depends(NeuralNetRunner)
    xgboost = bentoml.depends(XGBoostRunner)

    def __init__(self) -> None:
        settings = load_settings()
        release = find_release(settings.release)
        self.metrics = Metrics()
        self.metrics.serve(release)
        self._runners = self._find_runners()
        classifier = Classifier(release, *self._runners, self.metrics)
        self._batcher = Batcher(classifier.decide, settings.gateway)
        self.desk = Desk(
            Decoder(settings.limits, settings.request.max_transactions),
            self._batcher,
            Explainer(release.calibration, *self._runners, settings.explain),
        )
        self.page = PAGE
        self.openapi = json.dumps(document(settings)).encode()
        self.info = msgspec.json.encode(describe(release))

    @api
    async def classify(self, payload: Payload, /) -> Payload:
        """Decide one transaction, or each of a list.

        For callers in this process; over HTTP `bentos.gateway.app` answers the same path.
        """
        answer = await self.desk.answer(msgspec.json.encode(payload))
        return msgspec.json.decode(answer.body)

    @on_startup
    async def start_telling(self) -> None:
        """Hand metrics over every second, so that a scrape of another worker finds them too."""
        self._teller = asyncio.create_task(self._tell())

    @on_shutdown
    async def stop(self) -> None:
        """Stop telling and close the connections to the runners."""
        self._teller.cancel()
        for runner in self._runners:
            runner.close()

    async def _tell(self) -> None:
        while True:
            self.metrics.queued_rows.set(self._batcher.queued_rows)
            self.metrics.batches_in_flight.set(self._batcher.in_flight)
            self.metrics.hand_over()
            await asyncio.sleep(HAND_OVER_S)

    async def __is_ready__(self) -> bool:
        """Say whether both runners answer."""
        return all(await asyncio.gather(*(runner.is_ready(READY_TIMEOUT_S) for runner in self._runners)))

    def _find_runners(self) -> tuple[Scorer, Scorer]:
        """Return the way to each runner: its socket where it has a process of its own."""
        network, trees = url_of(NeuralNetRunner), url_of(XGBoostRunner)
        if network and trees:
            tell = self.metrics.runner_changed
            return RunnerClient("neural_net", network, tell), RunnerClient("xgboost", trees, tell)
        return LocalRunner(self.neural_net), LocalRunner(self.xgboost)
