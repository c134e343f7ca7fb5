"""Each workaround refuses to start once its library no longer works as it takes for granted."""

import asyncio
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn.config
import uvicorn.server
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.marshal import dispatcher as dispatcher_module
from bentoml._internal.marshal.dispatcher import CorkDispatcher
from prometheus_client import CollectorRegistry, Histogram

from bentos.compat import bulk_histogram, gc_freeze, metrics_dir, uvicorn_limits
from bentos.compat.assumptions import BrokenAssumptionError
from bentos.compat.bounded_optimizer import BoundedOptimizer, bound_wait
from bentos.compat.bulk_histogram import BulkHistogram
from bentos.compat.graceful_shutdown import GracefulShutdown
from bentos.compat.startup_check import check_all_assumptions


def dispatcher() -> CorkDispatcher[Any, Any]:
    return CorkDispatcher(1000, 100, fallback=lambda: None)


def test_a_learned_wait_is_bounded() -> None:
    bounded = dispatcher()
    bound_wait(bounded, max_wait_ms=2)
    assert isinstance(bounded.optimizer, BoundedOptimizer)
    bounded.optimizer.wait = 0.1
    assert bounded.optimizer.wait == 0.002
    bounded.optimizer.wait = 0.001
    assert bounded.optimizer.wait == 0.001


def test_the_installed_libraries_work_as_the_workarounds_take_for_granted() -> None:
    check_all_assumptions()


@pytest.mark.parametrize(
    ("target", "attribute", "library"),
    [
        (CorkDispatcher, "TICKET_INTERVAL", "bentoml"),
        (type(BentoMLContainer), metrics_dir.NAME, "bentoml"),
        (uvicorn.Server, "handle_exit", "uvicorn"),
        (uvicorn.server, "HANDLED_SIGNALS", "uvicorn"),
        (uvicorn.config, "HTTP_PROTOCOLS", "uvicorn"),
    ],
)
def test_a_library_that_changed_stops_the_start(
    target: Any, attribute: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(target, attribute)
    with pytest.raises(BrokenAssumptionError, match=f"^{library} [0-9.]+ does not fit"):
        check_all_assumptions()


def test_metrics_lie_where_no_other_service_of_bentoml_empties_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(metrics_dir.VARIABLE, raising=False)
    before = BentoMLContainer.prometheus_multiproc_dir.get()
    metrics_dir.use_own_metrics_dir.cache_clear()
    try:
        metrics_dir.use_own_metrics_dir()
        own = Path(BentoMLContainer.prometheus_multiproc_dir.get())
    finally:
        BentoMLContainer.prometheus_multiproc_dir.set(before)
        metrics_dir.use_own_metrics_dir.cache_clear()
    assert own.is_dir()
    assert not own.is_relative_to(BentoMLContainer.bentoml_home.get())


def test_a_dispatcher_without_a_wait_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "Optimizer", lambda max_latency: SimpleNamespace(wait=0))
    with pytest.raises(BrokenAssumptionError, match="bentoml"):
        check_all_assumptions()


def test_a_life_cycle_that_says_something_else_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def started(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.started"})

    monkeypatch.setattr(gc_freeze, "Starlette", lambda: started)
    with pytest.raises(BrokenAssumptionError, match=r"^starlette [0-9.]+ does not fit"):
        check_all_assumptions()


def test_a_cycle_that_does_not_know_whether_it_is_kept_stops_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uvicorn_limits, "RequestResponseCycle", lambda scope: None)
    with pytest.raises(BrokenAssumptionError, match="uvicorn"):
        check_all_assumptions()


@pytest.mark.parametrize("lost", ["_buckets", "_upper_bounds", "_sum"])
def test_another_histogram_stops_the_start(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*arguments: Any, **options: Any) -> Histogram:
        histogram = Histogram(*arguments, **options)
        delattr(histogram, lost)
        return histogram

    monkeypatch.setattr(bulk_histogram, "Histogram", without)
    with pytest.raises(BrokenAssumptionError, match="prometheus-client"):
        check_all_assumptions()


def test_a_histogram_counts_many_as_it_counts_each() -> None:
    registry = CollectorRegistry()
    one = Histogram("one", "h", registry=registry, buckets=(1, 2, 5))
    many = BulkHistogram("many", "h", registry=registry, buckets=(1, 2, 5))
    values = [0.5, 1.0, 1.5, 2.0, 4.0, 9.0, 9.0]
    for value in values:
        one.observe(value)
    many.observe_many(values)
    samples = [
        [
            (sample.name.split("_")[1], sample.labels, sample.value)
            for sample in metric.samples
            if not sample.name.endswith("_created")
        ]
        for metric in registry.collect()
    ]
    assert samples[0] == samples[1]


async def test_a_stop_signal_waits_until_no_request_has_arrived_for_a_while() -> None:
    stopped: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: stopped.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        shutdown = GracefulShutdown()
        shutdown.install()
        signal.raise_signal(signal.SIGTERM)
        for _ in range(8):
            shutdown.note_request()
            await asyncio.sleep(0.1)
        assert stopped == [], "requests were still arriving"
        async with asyncio.timeout(5):
            while not stopped:
                await asyncio.sleep(0.05)
        assert stopped == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
