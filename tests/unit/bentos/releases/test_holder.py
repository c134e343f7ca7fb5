"""What a runner process loads, refuses, keeps and drops."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentos.errors import NoReleaseError, ReleaseError
from bentos.releases.board import Board
from bentos.releases.holder import GATEWAY, ReleaseHolder
from bentos.releases.store import ModelStore, StoredPair

DEADLINE_S = 10.0


class Setting:
    """A store of empty folders, a board, and what the runner is to serve."""

    def __init__(self, folder: Path) -> None:
        self.store = ModelStore(folder / "models")
        self.board, self.gateway = Board(folder / "board"), Board(folder / "board")
        self.active: str | None = "7"
        self.damaged: set[str] = set()
        self.loads: list[str] = []
        self.holder = ReleaseHolder(
            "xgboost", "fraud_xgboost", self.load, self.store, self.choose, self.board
        )
        for version in ("7", "8", "9"):
            (self.store.folder / "fraud_xgboost" / version).mkdir(parents=True)

    def load(self, version: str) -> str:
        self.loads.append(version)
        if version in self.damaged:
            raise ReleaseError(f"{version} is damaged")
        return f"model {version}"

    def choose(self) -> StoredPair:
        if self.active is None:
            raise NoReleaseError("nothing")
        return StoredPair(self.active, self.active, "abc")

    def promote(self, version: str | None) -> None:
        self.active = version
        path = self.store.folder / "releases.json"
        path.with_suffix(".new").write_text(f"{version} {time.monotonic_ns()}")
        path.with_suffix(".new").replace(path)

    def note(self) -> dict[str, object]:
        return self.board.notes("xgboost")[0]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Setting]:
    """Yield a runner that serves release 7, which a gateway asks."""
    setting = Setting(tmp_path)
    setting.gateway.post(GATEWAY, {"serves": "7", "needs": ["7"]})
    setting.promote("7")
    setting.holder.start()
    yield setting
    setting.holder.stop()
    setting.gateway.close()


def wait_until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_its_start_it_holds_what_is_to_be_served(runner: Setting) -> None:
    assert runner.holder.holds("7")
    assert runner.holder.chosen() == "model 7"
    assert runner.note()["ready"] == ["7"]


def test_a_new_release_comes_beside_the_old_one_which_goes_once_no_gateway_needs_it(runner: Setting) -> None:
    runner.promote("8")
    wait_until(lambda: runner.note()["ready"] == ["7", "8"])
    runner.gateway.post(GATEWAY, {"serves": "8", "needs": ["7", "8"]})
    wait_until(lambda: runner.holder.chosen() == "model 8")
    assert runner.holder.holds("7")
    runner.gateway.post(GATEWAY, {"serves": "8", "needs": ["8"]})
    wait_until(lambda: runner.note()["ready"] == ["8"])
    assert not runner.holder.holds("7")
    assert runner.loads == ["7", "8"]


def test_without_a_living_gateway_everything_stays_loaded(runner: Setting) -> None:
    runner.gateway.close()
    runner.promote("8")
    wait_until(lambda: runner.note()["ready"] == ["7", "8"])


def test_what_does_not_load_is_refused_once_for_each_promotion(runner: Setting) -> None:
    runner.damaged = {"8"}
    for times in (1, 2):
        runner.promote("8")
        generation = runner.store.stamp()
        wait_until(lambda: runner.note()["refused"] == {"8": "8 is damaged"})
        wait_until(lambda generation=generation: runner.note()["generation"] == generation)
        time.sleep(0.6)  # further looks do not try again
        assert runner.loads == ["7"] + ["8"] * times
    assert runner.holder.holds("7")
    runner.damaged = set()
    runner.promote("8")
    wait_until(lambda: runner.holder.holds("8"))
    assert runner.note()["refused"] == {}


def test_a_release_that_is_not_in_the_store_is_refused(runner: Setting) -> None:
    runner.promote("10")
    wait_until(lambda: "cannot be opened" in str(runner.note()["refused"]))


def test_a_store_that_names_nothing_changes_nothing(runner: Setting) -> None:
    runner.promote(None)
    time.sleep(0.6)
    assert runner.holder.holds("7")


async def test_an_older_release_is_loaded_when_a_gateway_asks_for_it(runner: Setting) -> None:
    assert await runner.holder.obtain("7") == "model 7"
    assert await asyncio.wait_for(runner.holder.obtain("9"), DEADLINE_S) == "model 9"
    runner.damaged = {"8"}
    with pytest.raises(ReleaseError, match="8 is damaged"):
        await asyncio.wait_for(runner.holder.obtain("8"), DEADLINE_S)
    runner.damaged = set()
    assert await asyncio.wait_for(runner.holder.obtain("8"), DEADLINE_S) == "model 8"


def test_a_board_that_cannot_be_written_is_written_later(
    runner: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    post, times = runner.board.post, []

    def full(role: str, note: dict[str, object]) -> None:
        times.append(role)
        if len(times) < 4:
            raise OSError(28, "No space left on device")
        post(role, note)

    monkeypatch.setattr(runner.board, "post", full)
    runner.promote("8")
    wait_until(lambda: runner.note()["ready"] == ["7", "8"])
    assert caplog.text.count("No space left on device") == 1
