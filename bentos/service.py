"""FraudDetection: ``POST /classify``, composed of both runners."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import bentoml
import msgspec

from bentos.bentoml_services import GatewayService, url_of
from bentos.classify.batching import Batcher
from bentos.classify.classifier import Classifier
from bentos.classify.decoding import Decoder
from bentos.classify.explainer import Explainer
from bentos.classify.handler import ClassifyHandler, ServedRelease
from bentos.compat.bentoml_typing import api, on_shutdown, on_startup
from bentos.compat.uvicorn_tls import reload_changed
from bentos.gateway.openapi import PAGE, document
from bentos.metrics import Metrics
from bentos.process_metrics import ProcessMetrics
from bentos.releases.follower import ReleaseFollower
from bentos.releases.release import Release, describe, read_release
from bentos.releases.setup import process_board, process_choice, process_store
from bentos.rpc.client import RunnerClient
from bentos.rpc.scorer import InProcessRunner, Scorer
from bentos.runners import NeuralNetRunner, XGBoostRunner
from bentos.settings.load import process_settings

Payload = Any
"""One JSON object or a list of them."""
READY_TIMEOUT_S = 1.0
FLUSH_INTERVAL_S = 1.0
PROCESS_INTERVAL_S = 5.0


@bentoml.service(name="fraud_detection", service_class=GatewayService)
class FraudDetection:
    """Decides card transactions: approve, review or decline."""

    neural_net = bentoml.depends(NeuralNetRunner)
    xgboost = bentoml.depends(XGBoostRunner)

    def __init__(self) -> None:
        settings = process_settings()
        self.metrics = Metrics()
        self._runners = self._connect_runners()
        self._batcher = Batcher(settings.gateway)
        decoder = Decoder(settings.limits, settings.request.max_transactions)
        self.handler = ClassifyHandler(decoder, self._batcher)
        self.page = PAGE
        self.openapi = json.dumps(document(settings)).encode()
        store = process_store()
        self._follower = ReleaseFollower(
            store,
            process_choice(store, settings.release),
            process_board(),
            read=lambda version: read_release(store, version, settings.limits),
            change_over=self._change_over,
            count=self.metrics.count_swap,
        )
        self._follower.begin()

    @api
    async def classify(self, payload: Payload, /) -> Payload:
        """Decide one transaction, or each of a list.

        For callers in this process; over HTTP `bentos.gateway.app` answers the same path.
        """
        answer = await self.handler.handle(msgspec.json.encode(payload))
        return msgspec.json.decode(answer.body)

    @on_startup
    async def start(self) -> None:
        """Write metrics out every second, so that a scrape that reaches another worker finds them too.

        Follow the store from now on.
        """
        self._tasks = [
            asyncio.create_task(self._flush_metrics()),
            asyncio.create_task(self._follower.follow()),
            asyncio.create_task(self._watch_processes()),
        ]

    @on_shutdown
    async def stop(self) -> None:
        """Stop following the store and writing metrics, and close the connections to the runners."""
        for task in self._tasks:
            task.cancel()
        self._follower.close()
        for runner in self._runners:
            runner.close()

    async def _flush_metrics(self) -> None:
        while True:
            self.metrics.queued_rows.set(self._batcher.queued_rows)
            self.metrics.batches_in_flight.set(self._batcher.in_flight)
            self.metrics.flush()
            reload_changed()
            await asyncio.sleep(FLUSH_INTERVAL_S)

    async def _watch_processes(self) -> None:
        processes = ProcessMetrics()
        certificate = process_settings().security.tls.certificate_file
        while True:
            if certificate is not None:  # it may have been replaced
                processes.set_certificate(certificate)
            # In a thread: reading every process of a large machine takes milliseconds.
            await asyncio.to_thread(processes.update)
            await asyncio.sleep(PROCESS_INTERVAL_S)

    async def __is_ready__(self) -> bool:
        """Say whether both runners answer with the release that is served."""
        version = self._follower.version
        return all(
            await asyncio.gather(*(runner.is_ready(version, READY_TIMEOUT_S) for runner in self._runners))
        )

    def _change_over(self, release: Release) -> ServedRelease:
        """Answer with `release` from now on; what is under way ends with the one before."""
        classifier = Classifier(release, *self._runners, self.metrics)
        explainer = Explainer(release, *self._runners, process_settings().explain)
        served = ServedRelease(classifier.decide, explainer)
        info = msgspec.json.encode(describe(release))
        self.handler.served, self.info = served, info
        self.metrics.set_release(release)
        return served

    def _connect_runners(self) -> tuple[Scorer, Scorer]:
        """Return a client of each runner, or the runner itself where it is in this process."""
        network, trees = url_of(NeuralNetRunner), url_of(XGBoostRunner)
        if network and trees:
            connect = partial(
                RunnerClient, served=lambda: self._follower.version, on_change=self.metrics.set_runner_up
            )
            return connect("neural_net", network), connect("xgboost", trees)
        return InProcessRunner(self.neural_net), InProcessRunner(self.xgboost)
