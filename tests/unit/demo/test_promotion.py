"""Which release the demo promotes, and what it says when that fails."""

import json
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from demo import promotion
from demo.errors import DemoError
from demo.pipeline import Pipeline
from demo.processes import Process
from demo.promotion import FirstAnswer, find_other_release
from demo.screen import Step


class Training:
    """A pipeline whose `releases` lists what it is given, and whose `train` registers release 2."""

    options = type("Options", (), {"data": None})

    def __init__(self, folder: Path, listed: str) -> None:
        self._folder = folder
        self._said = {"releases": f" release   alias\n {listed}", "training-2": "release 2: done"}

    def training(self, log: str, *arguments: str, env: dict[str, str] | None = None) -> Process:
        command = [sys.executable, "-c", f"print({self._said[log]!r})"]
        return Process("Training", command, self._folder / f"{log}.log", env)


class Quiet:
    def say(self, text: str) -> None:
        pass


@pytest.mark.parametrize(
    ("listed", "expected", "is_trained"),
    [("1   champion   9 days", "2", True), ("1   champion\n 9   challenger", "9", False)],
)
def test_only_a_release_of_this_registry_is_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, expected: str, is_trained: bool
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    record: dict[str, Any] = {"active": {"release": "1"}, "previous": {"release": "9"}}
    (models / "releases.json").write_text(json.dumps(record))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    pipeline = cast("Pipeline", Training(tmp_path, listed))
    assert find_other_release(pipeline, cast("Step", Quiet())) == expected
    assert (tmp_path / "training-2.log").exists() == is_trained


def test_a_command_that_fails_is_the_cause_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "served", lambda service: "1")
    with pytest.raises(DemoError, match="there is no release 2"), FirstAnswer("http://127.0.0.1:1", "2"):
        raise DemoError("there is no release 2")


def test_a_service_that_does_not_change_over_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "served", lambda service: "1")
    monkeypatch.setattr(promotion, "SWAP_TIMEOUT_S", 0.2)
    with (
        pytest.raises(DemoError, match="did not change over to release 2"),
        FirstAnswer("http://127.0.0.1:1", "2"),
    ):
        pass
