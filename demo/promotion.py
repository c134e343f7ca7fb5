"""Promotes another release while the stream flows, then goes back: what a running service does about it."""

import json
import os
import re
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from demo.errors import DemoError
from demo.ledger import Ledger
from demo.pipeline import Pipeline
from demo.processes import Process
from demo.screen import Step
from demo.stream import StreamReader

#: Good enough to be another release; the one the demo keeps is the first.
QUICK = {
    "TRAINING__NETWORK__EPOCHS": "2",
    "TRAINING__XGBOOST__TREES": "20",
    "TRAINING__EVALUATION__RESAMPLES": "20",
    "TRAINING__GATE__RESAMPLES": "20",
}
#: A command of training took 5 to 10 s on a quiet machine and 40 s on a busy one.
SWAP_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Promotion:
    """What a change of releases under traffic showed.

    Attributes
    ----------
    release : str
        The other release.
    seconds : float
        From its entry in the model store to the service's first answer with it.
    requests, failed : int
        Requests to the service meanwhile, and those that it did not answer with 200.
    ledger : Ledger
        The transactions that went through the stream meanwhile.
    """

    release: str
    seconds: float
    requests: int
    failed: int
    ledger: Ledger

    def __str__(self) -> str:
        return (
            f"release {self.release} and back under traffic: swapped in {self.seconds:.1f} s, "
            f"{self.requests:,} requests, requests failed {self.failed}"
        )

    def document(self) -> dict[str, Any]:
        """Return the figures as ``summary.json`` holds them."""
        return {
            "release": self.release,
            "swapped_in_s": round(self.seconds, 2),
            "requests": self.requests,
            "requests_failed": self.failed,
            "transactions": len(self.ledger.produced_at_ms),
            "lost": self.ledger.lost,
            "duplicates": self.ledger.duplicates,
            "releases": sorted(self.ledger.releases),
        }


def find_other_release(pipeline: Pipeline, step: Step) -> str:
    """Return the number of a release beside the active one; train one quickly where there is none.

    The store may hold releases of another registry, as after a second clone: only ours can be promoted.
    """
    active, previous = (read_record()[name] for name in ("active", "previous"))
    if previous is not None and previous["release"] != active["release"]:
        with pipeline.training("releases", "releases") as child:
            child.wait_done()
        if previous["release"] in re.findall(r"^ ?(\d+) ", child.log.read_text(), re.MULTILINE):
            return str(previous["release"])
    step.say("training a second release quickly")
    arguments = ["train", "--challenge", "--seed", "11", "--protocol", "temporal"]
    arguments += ["--data", pipeline.options.data] if pipeline.options.data else []
    with pipeline.training("training-2", *arguments, env=QUICK) as child:
        child.wait_done()
        found = re.findall(r"release (\d+)", child.log.read_text())
    if not found:
        raise DemoError("Training did not say which release it registered.", child.log)
    return str(found[-1])


def promote_under_traffic(
    pipeline: Pipeline, service: str, reader: StreamReader, replay: Process, other: str, step: Step
) -> Promotion:
    """Promote `other` while `replay` runs, go back to the release before, and end the replay.

    Raises
    ------
    DemoError
        If a command fails, or the service does not change over.
    """
    first = served(service)
    ledger = reader.ledger = Ledger()
    before = count_requests(service)
    step.say(f"promoting release {other}")
    seconds = change(pipeline, service, reader, other, "promote", other, "--force")
    step.say(f"rolling back to release {first}")
    change(pipeline, service, reader, first, "rollback")
    replay.stop()
    drain(reader, ledger)
    after = count_requests(service)
    requests, failed = (after[name] - before[name] for name in ("requests", "failed"))
    return Promotion(other, seconds, requests, failed, ledger)


def change(pipeline: Pipeline, service: str, reader: StreamReader, release: str, *command: str) -> float:
    """Run a command that makes a release active; return the seconds from the store to the first answer."""
    looker = FirstAnswer(service, release)
    with pipeline.training(command[0], *command) as child, looker:
        child.wait_done(on_poll=partial(_keep_reading, reader))
    return looker.seen_at - (store() / "releases.json").stat().st_mtime


def drain(reader: StreamReader, ledger: Ledger) -> None:
    """Read until every transaction that was sent has its outcome."""
    deadline = time.monotonic() + SWAP_TIMEOUT_S
    quiet = 0
    while quiet < 5 or ledger.lost:
        quiet = 0 if _read(reader) else quiet + 1
        if time.monotonic() > deadline:
            return  # the accounts will tell


def _read(reader: StreamReader) -> int:
    count = reader.read()
    reader.ledger.settle()
    return count


def _keep_reading(reader: StreamReader) -> None:
    _read(reader)


class FirstAnswer:
    """Looks for the service's first answer with a release, on a thread."""

    def __init__(self, service: str, release: str) -> None:
        self._service, self._release = service, release
        self.seen_at = 0.0
        self._is_given_up = False
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "FirstAnswer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_given_up = kind is not None  # what failed is the cause: no change is to be waited for
        self._thread.join()
        if not (self.seen_at or self._is_given_up):
            raise DemoError(f"The service did not change over to release {self._release}: look at its log.")

    def _look(self) -> None:
        deadline = time.monotonic() + SWAP_TIMEOUT_S
        while not (self.seen_at or self._is_given_up) and time.monotonic() < deadline:
            if served(self._service) == self._release:
                self.seen_at = time.time()
            time.sleep(0.05)


def served(service: str) -> str:
    """Return the release that the service answers with."""
    info: dict[str, Any] = httpx.get(f"{service}/info", timeout=10, trust_env=False).raise_for_status().json()
    return str(info["release"])


def count_requests(service: str) -> dict[str, int]:
    """Return how many requests to /classify the service has counted, and how many of them were not 200."""
    text = httpx.get(f"{service}/metrics", timeout=10, trust_env=False).text
    found = re.findall(r'^fraud_requests_total\{status="(\d+)"\} (\S+)', text, re.MULTILINE)
    counts = {status: int(float(value)) for status, value in found}
    return {"requests": sum(counts.values()), "failed": sum(counts.values()) - counts.get("200", 0)}


def store() -> Path:
    """Return the folder of the model store."""
    home = os.path.expandvars(os.environ.get("BENTOML_HOME", "~/bentoml"))
    return Path(home).expanduser() / "models"


def read_record() -> dict[str, Any]:
    """Return which releases of the store are active, challenger and previous."""
    document: dict[str, Any] = json.loads((store() / "releases.json").read_text(encoding="utf-8"))
    return document
