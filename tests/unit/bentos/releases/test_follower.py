"""When a gateway changes over, and when it does not."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bentos.errors import NoReleaseError, ReleaseError
from bentos.releases.board import Board
from bentos.releases.follower import ReleaseFollower
from bentos.releases.holder import GATEWAY
from bentos.releases.store import ModelStore, StoredPair

DEADLINE_S = 10.0


class Gateway:
    """A gateway process, and the runners' notes, which the test writes."""

    def __init__(self, folder: Path) -> None:
        self.store = ModelStore(folder / "models")
        self.folder = folder
        self.runners = [(role, Board(folder / "board")) for role in ("neural_net", "xgboost")]
        self.active: str | None = "7"
        self.unreadable: set[str] = set()
        self.served: list[Any] = []
        self.counted: list[str] = []
        for version in ("7", "8"):
            (self.store.folder / "fraud_neural_net" / version).mkdir(parents=True)
        self.promote("7")

    def follower(self) -> ReleaseFollower:
        return ReleaseFollower(
            self.store, self.choose, Board(self.folder / "board"), self.read, self.change_over, self.count
        )

    def choose(self) -> StoredPair:
        if self.active is None:
            raise NoReleaseError("The store holds no challenger.")
        return StoredPair(self.active, self.active, "abc")

    def read(self, version: str) -> Any:
        if version in self.unreadable:
            raise ReleaseError(f"{version} has other features")
        return SimpleNamespace(version=version, number=version)

    def change_over(self, release: Any) -> Any:
        self.served.append(SimpleNamespace(version=release.version, requests=0))
        return self.served[-1]

    def count(self, outcome: str) -> None:
        self.counted.append(outcome)

    def promote(self, version: str | None) -> None:
        self.active = version
        path = self.store.folder / "releases.json"
        path.with_suffix(".new").write_text(f"{version} {time.monotonic_ns()}")
        path.with_suffix(".new").replace(path)

    def runners_say(self, *ready: str, refused: dict[str, str] | None = None) -> None:
        for _, board in self.runners:
            board.close()
        for role, board in self.runners:
            note = {"generation": self.store.stamp(), "ready": list(ready), "refused": refused or {}}
            board.post(role, note)

    def needs(self) -> Any:
        return Board(self.folder / "board").notes(GATEWAY)[0]["needs"]


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


@asynccontextmanager
async def following(gateway: Gateway) -> AsyncIterator[ReleaseFollower]:
    follower = gateway.follower()
    follower.begin()
    task = asyncio.create_task(follower.follow())
    try:
        yield follower
    finally:
        task.cancel()
        follower.close()


async def wait_until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_true():
            await asyncio.sleep(0.01)


async def test_it_changes_over_when_both_runners_have_the_release_and_not_before(gateway: Gateway) -> None:
    gateway.runners_say("7")
    async with following(gateway) as follower:
        assert follower.version == "7"
        gateway.promote("8")
        gateway.runners[0][1].post("neural_net", {"generation": "", "ready": ["7", "8"], "refused": {}})
        await asyncio.sleep(0.6)
        assert follower.version == "7"
        gateway.runners_say("7", "8")
        await wait_until(lambda: follower.version == "8")
    assert gateway.counted == ["swapped"]


async def test_the_old_release_is_needed_until_its_last_answer(gateway: Gateway) -> None:
    gateway.runners_say("7", "8")
    async with following(gateway) as follower:
        gateway.served[0].requests = 1
        gateway.promote("8")
        await wait_until(lambda: follower.version == "8")
        await asyncio.sleep(0.6)
        assert gateway.needs() == ["7", "8"]
        gateway.served[0].requests = 0
        await wait_until(lambda: gateway.needs() == ["8"])


@pytest.mark.parametrize("who", ["runner", "gateway"])
async def test_a_refused_release_is_counted_and_logged_once_and_the_old_one_stays(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, who: str
) -> None:
    gateway.runners_say("7")
    async with following(gateway) as follower, following(gateway):
        gateway.promote("8")
        if who == "runner":
            gateway.runners_say("7", refused={"8": "8 is damaged"})
        else:
            gateway.unreadable = {"8"}
            gateway.runners_say("7", "8")
        await wait_until(lambda: gateway.counted)
        await asyncio.sleep(0.6)
        assert (follower.version, gateway.counted) == ("7", ["refused"])
        assert caplog.text.count("is refused") == 1
        assert "Release 7 is served on." in caplog.text


async def test_what_a_runner_refused_before_this_promotion_does_not_count(gateway: Gateway) -> None:
    gateway.runners_say("7", refused={"8": "8 was damaged"})
    async with following(gateway) as follower:
        gateway.promote("8")  # mended, and promoted again
        await asyncio.sleep(0.6)
        assert gateway.counted == []
        gateway.runners_say("7", "8")
        await wait_until(lambda: follower.version == "8")


async def test_a_challenger_that_is_gone_is_served_on(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.runners_say("7")
    async with following(gateway) as follower:
        gateway.promote(None)
        await wait_until(lambda: "holds no challenger. Release 7 is served on." in caplog.text)
        assert (follower.version, gateway.counted) == ("7", [])


async def test_a_gateway_that_is_started_again_serves_what_the_runners_have(gateway: Gateway) -> None:
    gateway.promote("8")
    gateway.runners_say("7")  # 8 is still being loaded
    async with following(gateway) as follower:
        assert follower.version == "7"
        gateway.runners_say("7", "8")
        await wait_until(lambda: follower.version == "8")


async def test_a_gateway_that_is_started_again_serves_what_its_neighbours_do(gateway: Gateway) -> None:
    gateway.runners_say("7", "8")
    neighbour = Board(gateway.folder / "board")
    neighbour.post(GATEWAY, {"serves": "8", "needs": ["8"]})
    follower = gateway.follower()
    try:
        assert follower.begin().version == "8"
    finally:
        follower.close()
        neighbour.close()


def test_at_the_very_start_it_takes_what_is_to_be_served(gateway: Gateway) -> None:
    follower = gateway.follower()
    assert follower.begin().version == "7"
    follower.close()
    gateway.promote(None)
    with pytest.raises(NoReleaseError):
        gateway.follower().begin()
