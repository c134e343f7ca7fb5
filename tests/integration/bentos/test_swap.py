"""A served bento changes over to another release while it serves: nobody notices, and nothing is mixed."""

import asyncio
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml

from tests.integration.bentos.test_faults import runner, wait_for
from tests.serving_fixtures import (
    FEATURES,
    Served,
    encoded,
    is_ready,
    reference_scores,
    service,
    store_release,
    write_record,
)

JSON = {"content-type": "application/json"}
MODELS = {"neural_net": "fraud_neural_net", "xgboost": "fraud_xgboost"}
Start = Callable[..., Served]


@pytest.fixture(scope="module")
def both_stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with releases 7 and 8, which score differently; read only."""
    home = tmp_path_factory.mktemp("both") / "bentoml"
    store_release(home, "7")
    store_release(home, "8", is_other=True)
    return home


@pytest.fixture
def home(both_stored: Path, tmp_path: Path) -> Path:
    """Return a home of its own with both releases, 7 active."""
    shutil.copytree(both_stored, tmp_path / "bentoml")
    write_record(tmp_path / "bentoml", active="7")
    return tmp_path / "bentoml"


@pytest.fixture
def start(home: Path, tmp_path: Path) -> Iterator[Start]:
    """Return a function that serves the store in `home`."""
    with ExitStack() as stack:

        def serve(variables: dict[str, str] | None = None, **options: Any) -> Served:
            return stack.enter_context(service(home, tmp_path / "service.log", variables, **options))

        yield serve


@pytest.fixture
def expected(home: Path, transactions: list[dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Return every release's scores of the transactions, by model, without any service."""
    rows = np.array([[row[name] for name in FEATURES] for row in transactions], np.float32)
    return {
        version: {
            model: reference_scores(home / "models" / name / version / "mlflow_model", rows)
            for model, name in MODELS.items()
        }
        for version in ("7", "8")
    }


def info(served: Served) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{served.url}/info", timeout=5).json()
    return answer


def wait_until_served(served: Served, release: str, timeout_s: float = 10) -> float:
    """Wait until `/info` names a release; return how long that took."""
    began = time.monotonic()
    while info(served)["release"] != release:
        assert time.monotonic() - began < timeout_s, served.log.read_text()[-3000:]
        time.sleep(0.02)
    return time.monotonic() - began


def metric(served: Served, line: str) -> float:
    """Return the value of a series of `/metrics`."""
    for text in httpx.get(f"{served.url}/metrics", timeout=5).text.splitlines():
        if text.startswith(line):
            return float(text.split()[-1])
    raise AssertionError(f"no {line}")


class Traffic:
    """Asks all the time, and checks every answer against the release it names."""

    def __init__(self, served: Served, transactions: list[Any], expected: dict[str, Any]) -> None:
        self._served, self._transactions, self._expected = served, transactions, expected
        self._is_over = False
        self.answers = 0
        self.releases: list[str] = []
        self.faults: list[str] = []

    async def __aenter__(self) -> "Traffic":
        limits = httpx.Limits(max_connections=20)
        self._client = httpx.AsyncClient(base_url=self._served.url, headers=JSON, timeout=30, limits=limits)
        spans = [(number, number + 1) for number in range(0, 12)] + [(0, 1200), (100, 700)]
        self._tasks = [asyncio.create_task(self._ask(*span)) for span in spans]
        self._tasks.append(asyncio.create_task(self._ask(0, 3, "?explain=true")))
        self._tasks.append(asyncio.create_task(self._ask_ready()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    async def _ask(self, first: int, end: int, query: str = "") -> None:
        body = encoded(self._transactions[first:end])
        while not self._is_over:
            answer = await self._client.post(f"/classify{query}", content=body)
            if answer.status_code != 200:
                self.faults.append(f"{answer.status_code} {answer.text[:200]}")
                continue
            self._check(answer.json(), first, end)

    async def _ask_ready(self) -> None:
        while not self._is_over:
            answer = await self._client.get("/readyz")
            if answer.status_code != 200:
                self.faults.append("not ready")
            await asyncio.sleep(0.05)

    def _check(self, decisions: list[dict[str, Any]], first: int, end: int) -> None:
        self.answers += 1
        named = {(row["release"], *sorted(row["models"].values())) for row in decisions}
        release = decisions[0]["release"]
        self.releases.append(release)
        if named != {(release, f"fraud_neural_net:{release}", f"fraud_xgboost:{release}")}:
            self.faults.append(f"mixed {named}")
        for model in MODELS:
            scores = np.array([row["scores"][model] for row in decisions])
            if np.abs(scores - self._expected[release][model][first:end]).max() > 1e-6:
                self.faults.append(f"{model} of {release} is off")


async def swap_under_traffic(traffic: Traffic, home: Path, served: Served, *releases: str) -> list[float]:
    seconds = []
    async with traffic:
        await asyncio.sleep(0.5)
        for release in releases:
            write_record(home, active=release)
            seconds.append(await asyncio.to_thread(wait_until_served, served, release))
            await asyncio.sleep(0.7)
    return seconds


def test_answers_change_over_and_none_fails_or_is_mixed(
    home: Path, start: Start, transactions: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    served = start({"SERVING__GATEWAY__MAX_BATCH_ROWS": "100"})  # a list of 1,200 is decided in 12 batches
    traffic = Traffic(served, transactions, expected)
    seconds = asyncio.run(swap_under_traffic(traffic, home, served, "8", "7", "8"))
    assert traffic.faults == []
    assert {"7", "8"} == set(traffic.releases)
    assert max(seconds) < 5
    assert metric(served, 'fraud_release_swaps_total{outcome="swapped"}') == 3
    assert metric(served, 'fraud_release_swaps_total{outcome="refused"}') == 0
    assert metric(served, 'fraud_release_info{neural_net="fraud_neural_net:8"') == 1
    assert metric(served, 'fraud_release_info{neural_net="fraud_neural_net:7"') == 0
    assert served.log.read_text().count("Release 8 is served now") == 2


def damage(home: Path) -> None:
    (home / "models" / "fraud_xgboost" / "8" / "mlflow_model" / "model.ubj").write_bytes(b"damaged")


def exchange(home: Path) -> None:
    """Put the network of release 7 in the place of 8's: it loads, and scores otherwise."""
    network = Path("mlflow_model", "extra_files", "model.onnx")
    shutil.copy(
        home / "models" / "fraud_neural_net" / "7" / network,
        home / "models" / "fraud_neural_net" / "8" / network,
    )


def change_document(home: Path, **changes: Any) -> None:
    path = home / "models" / "fraud_neural_net" / "8" / "model.yaml"
    document = yaml.safe_load(path.read_text())
    document["metadata"] |= changes
    path.write_text(json.dumps(document))


def other_features(home: Path) -> None:
    change_document(home, feature_names=[*FEATURES[1:], FEATURES[0]])


def narrower(home: Path) -> None:
    limits = {"time_min_s": 0, "time_max_s": 1.0, "component_max": 1e6, "amount_min": 0, "amount_max": 1e30}
    change_document(home, input_limits=limits)


def remove(home: Path) -> None:
    shutil.rmtree(home / "models" / "fraud_neural_net" / "8")


def tear_record(home: Path) -> None:
    (home / "models" / "releases.json").write_text('{"schema": 1, "active"')


FAULTS = {
    damage: "cannot be loaded",
    exchange: "does not score its reference batch as when it was trained",
    other_features: "trained on other features",
    narrower: "limits.time_max_s",
    remove: "cannot be opened",
    tear_record: "cannot be read as the store's record",
}


def test_what_cannot_be_served_is_refused_and_the_old_release_stays(
    home: Path, start: Start, both_stored: Path, transactions: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    served = start()
    for number, (fault, sentence) in enumerate(FAULTS.items(), start=1):
        shutil.rmtree(home / "models" / "fraud_neural_net" / "8", ignore_errors=True)
        shutil.rmtree(home / "models" / "fraud_xgboost" / "8", ignore_errors=True)
        for name in MODELS.values():
            shutil.copytree(both_stored / "models" / name / "8", home / "models" / name / "8")
        fault(home)
        if fault is not tear_record:
            write_record(home, active="8")
        wait_for_metric(served, 'fraud_release_swaps_total{outcome="refused"}', number)
        traffic = Traffic(served, transactions, expected)
        asyncio.run(pass_time(traffic, 0.6))
        assert (traffic.faults, set(traffic.releases)) == ([], {"7"}), fault.__name__
        assert served.log.read_text().count(sentence) == 1, (fault.__name__, served.log.read_text()[-2000:])
        write_record(home, active="7")
        time.sleep(0.6)
    assert metric(served, 'fraud_release_swaps_total{outcome="swapped"}') == 0


async def pass_time(traffic: Traffic, seconds: float) -> None:
    async with traffic:
        await asyncio.sleep(seconds)


def wait_for_metric(served: Served, line: str, value: float, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while metric(served, line) < value:
        assert time.monotonic() < deadline, served.log.read_text()[-3000:]
        time.sleep(0.1)
    assert metric(served, line) == value


def test_a_runner_killed_long_after_the_old_pair_was_deleted_comes_back_with_the_active_one(
    home: Path, start: Start, transaction: dict[str, Any]
) -> None:
    served = start()
    write_record(home, active="8")
    wait_until_served(served, "8")
    for name in MODELS.values():
        shutil.rmtree(home / "models" / name / "7")
    for process in [runner(served, name) for name in ("NeuralNetRunner", "XGBoostRunner")]:
        process.kill()
    wait_for(200, served, transaction, timeout_s=60)
    assert httpx.post(f"{served.url}/classify", content=encoded(transaction), headers=JSON).json()[
        "release"
    ] == ("8")
    assert is_ready(served.url)


def gateway(served: Served) -> psutil.Process:
    for process in psutil.Process(served.process.pid).children(recursive=True):
        line = process.cmdline()
        if "_bentoml_impl.worker.service" in line and not {"NeuralNetRunner", "XGBoostRunner"} & set(line):
            return process
    raise AssertionError("no gateway runs")


@pytest.mark.parametrize("who", ["NeuralNetRunner", "XGBoostRunner", "gateway"])
def test_a_process_killed_in_mid_swap_comes_back_and_the_swap_is_done(
    home: Path, start: Start, transaction: dict[str, Any], who: str
) -> None:
    served = start({"SERVING__GATEWAY__DEADLINE_MS": "20000"})  # ready means answered, however slowly
    write_record(home, active="8")
    (gateway(served) if who == "gateway" else runner(served, who)).kill()
    deadline = time.monotonic() + 90
    while True:
        try:
            if is_ready(served.url) and info(served)["release"] == "8":
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, served.log.read_text()[-3000:]
        time.sleep(0.1)
    answer = httpx.post(f"{served.url}/classify", content=encoded(transaction), headers=JSON, timeout=30)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["release"], answer.json()["models"]["xgboost"]) == ("8", "fraud_xgboost:8")


def test_many_processes_of_each_kind_change_over_together(
    home: Path, start: Start, transaction: dict[str, Any]
) -> None:
    served = start({f"SERVING__{part}__WORKERS": "2" for part in ("GATEWAY", "NEURAL_NET", "XGBOOST")})
    for release in ("8", "7", "8"):
        write_record(home, active=release)
        first, last = first_and_last_change(served, release)
        assert last - first < 1.0
    assert metric(served, 'fraud_release_swaps_total{outcome="swapped"}') == 3
    assert served.log.read_text().count("Release 8 is served now") == 2


def first_and_last_change(served: Served, release: str, timeout_s: float = 15) -> tuple[float, float]:
    """Ask over new connections, which any gateway process may take, until the old release has long gone."""
    began = time.monotonic()
    first, last_old = 0.0, began
    while time.monotonic() - last_old < 1.5 or not first:
        assert time.monotonic() - began < timeout_s
        now = time.monotonic()
        if info(served)["release"] == release:
            first = first or now
        else:
            last_old = now
    return first, max(first, last_old)


def test_two_promotions_within_a_second_end_with_the_last(
    home: Path, start: Start, transactions: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    served = start()
    traffic = Traffic(served, transactions, expected)

    async def promote_twice() -> None:
        async with traffic:
            for _ in range(3):
                write_record(home, active="8")
                await asyncio.sleep(0.15)
                write_record(home, active="7")
                await asyncio.sleep(0.3)
            write_record(home, active="8")
            await asyncio.to_thread(wait_until_served, served, "8")

    asyncio.run(promote_twice())
    assert traffic.faults == []


def test_a_pinned_release_stays_and_the_challenger_is_followed(home: Path, tmp_path: Path) -> None:
    store_release(home, "9")
    write_record(home, active="7", challenger="8")
    pinned = service(home, tmp_path / "pinned.log", {"SERVING__RELEASE": "7"})
    shadow = service(home, tmp_path / "shadow.log", {"SERVING__RELEASE": "challenger"})
    with pinned as champion, shadow as challenger:
        assert (info(champion)["release"], info(challenger)["release"]) == ("7", "8")
        write_record(home, active="8", challenger="9")
        wait_until_served(challenger, "9")
        write_record(home, active="9")
        time.sleep(1.0)
        assert (info(champion)["release"], info(challenger)["release"]) == ("7", "9")
        assert "holds no challenger" in challenger.log.read_text()


def test_nothing_can_delete_what_is_served(home: Path, start: Start) -> None:
    served = start()
    folders = {version: home / "models" / "fraud_xgboost" / version for version in ("7", "8")}
    assert [is_locked(folders[version]) for version in ("7", "8")] == [True, False]
    write_record(home, active="8")
    wait_until_served(served, "8")
    deadline = time.monotonic() + 5
    while [is_locked(folders[version]) for version in ("7", "8")] != [False, True]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.parametrize("flag", ["--development", "--reload"])
def test_the_ways_to_serve_while_developing_follow_too(home: Path, start: Start, flag: str) -> None:
    served = start(target=[flag])
    write_record(home, active="8")
    wait_until_served(served, "8")
    answer = httpx.post(
        f"{served.url}/classify", content=encoded([dict.fromkeys(FEATURES, 0.5)]), headers=JSON
    )
    assert answer.json()[0]["release"] == "8"
