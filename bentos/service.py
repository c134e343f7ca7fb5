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
from bentos.classify.handler import ClassifyHandler
from bentos.compat.bentoml_typing import api, on_shutdown, on_startup
from bentos.gateway.openapi import PAGE, document
from bentos.metrics import Metrics
from bentos.release import describe, find_release
from bentos.rpc.client import RunnerClient
from bentos.rpc.scorer import InProcessRunner, Scorer
from bentos.runners import NeuralNetRunner, XGBoostRunner
from bentos.settings.load import process_settings

Payload = Any
"""One JSON object or a list of them."""
READY_TIMEOUT_S = 1.0
FLUSH_INTERVAL_S = 1.0


@bentoml.service(name="fraud_detection", service_class=GatewayService)
class FraudDetection:
    """Decides card transactions: approve, review or decline."""

    neural_net = bentoml.depends(NeuralNetRunner)
    xgboost = bentoml.depends(XGBoostRunner)

    def __init__(self) -> None:
        settings = process_settings()
        release = find_release(settings.release)
        self.metrics = Metrics()
        self.metrics.set_release(release)
        self._runners = self._connect_runners()
        classifier = Classifier(release, *self._runners, self.metrics)
        self._batcher = Batcher(classifier.decide, settings.gateway)
        self.handler = ClassifyHandler(
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
        answer = await self.handler.handle(msgspec.json.encode(payload))
        return msgspec.json.decode(answer.body)

    @on_startup
    async def start_flushing_metrics(self) -> None:
        """Write metrics out every second, so that a scrape that reaches another worker finds them too."""
        self._flushing = asyncio.create_task(self._flush_metrics())

    @on_shutdown
    async def stop(self) -> None:
        """Stop writing metrics and close the connections to the runners."""
        self._flushing.cancel()
        for runner in self._runners:
            runner.close()

    async def _flush_metrics(self) -> None:
        while True:
            self.metrics.queued_rows.set(self._batcher.queued_rows)
            self.metrics.batches_in_flight.set(self._batcher.in_flight)
            self.metrics.flush()
            await asyncio.sleep(FLUSH_INTERVAL_S)

    async def __is_ready__(self) -> bool:
        """Say whether both runners answer."""
        return all(await asyncio.gather(*(runner.is_ready(READY_TIMEOUT_S) for runner in self._runners)))

    def _connect_runners(self) -> tuple[Scorer, Scorer]:
        """Return a client of each runner, or the runner itself where it is in this process."""
        network, trees = url_of(NeuralNetRunner), url_of(XGBoostRunner)
        if network and trees:
            on_change = self.metrics.set_runner_up
            return RunnerClient("neural_net", network, on_change), RunnerClient("xgboost", trees, on_change)
        return InProcessRunner(self.neural_net), InProcessRunner(self.xgboost)
