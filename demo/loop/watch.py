"""Looks at the running circle from outside: the topics, the monitor, and the service as a caller has it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from demo.errors import DemoError
from demo.loop.account import Account
from demo.stream import StreamReader, Topics

PROBE_EVERY_S = 0.1
LOOK_EVERY_S = 1.0
FOLLOW_EVERY_S = 0.2
#: Series that are no inputs.
SCORES = ("neural_net", "xgboost", "fraud_probability")


class Thread:
    """A thread that ends with its block."""

    def __init__(self, turn: Callable[[], None], every_s: float) -> None:
        self._stopped = threading.Event()
        self._turn, self._every_s = turn, every_s
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Thread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._turn()


class Follower:
    """Books what the topics hold into an account; a stream without records is no stop."""

    def __init__(self, address: str, topics: Topics, account: Account) -> None:
        self._reader = StreamReader(address, topics, account)
        self.lock = threading.Lock()
        self.account = account

    def turn(self) -> None:
        """Read what has come."""
        with self.lock:
            self._reader.read()

    def close(self) -> None:
        """Leave the broker."""
        with self.lock:
            self._reader.close()


@dataclass
class Prober:
    """Asks the service as any caller does, all the time; counts what fails."""

    url: str
    body: bytes
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    releases: list[tuple[float, str]] = field(default_factory=list)
    slowest_s: float = 0.0

    def __post_init__(self) -> None:
        self._client = httpx.Client(
            timeout=10.0, headers={"content-type": "application/json"}, trust_env=False
        )

    def turn(self) -> None:
        """Ask once."""
        begun = time.monotonic()
        self.asked += 1
        try:
            answer = self._client.post(f"{self.url}/classify", content=self.body)
            if answer.status_code != httpx.codes.OK:
                self.failures.append(str(answer.status_code))
                return
        except httpx.HTTPError as error:
            self.failures.append(type(error).__name__)
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        release = answer.json()[0]["release"]
        if not self.releases or self.releases[-1][1] != release:
            self.releases.append((time.time(), release))


@dataclass
class Monitored:
    """What the monitor says, looked at every second."""

    url: str
    latest: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def turn(self) -> None:
        """Look once; a monitor that is busy is asked again."""
        try:
            answer = httpx.get(f"{self.url}/quality.json", timeout=5, trust_env=False)
            self.latest = answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return
        self.history.append((time.time(), self.latest))

    def first_alarm_ms(self, kind: str, release: str) -> int | None:
        """Return when the first alarm of a kind was raised on the champion, or None; drift is of inputs."""
        found = [
            one["since_ms"]
            for one in self.latest.get("alarms", ())
            if (one["kind"], one["role"], one["release"]) == (kind, "champion", release)
            and one["series"] not in SCORES
        ]
        return min(found, default=None)

    def shadow(self) -> dict[str, Any]:
        """Return the comparison of champion and challenger since it began; empty when there is none."""
        found = (self.latest.get("shadow") or {}).get("windows", {}).get("since_release")
        return dict(found or {})

    def arrived(self, release: str) -> dict[str, Any] | None:
        """Return the recall over the labels that came lately."""
        return next(
            (
                one["arrived"]["recall"]
                for one in self.latest.get("releases", ())
                if one["role"] == "champion" and one["release"] == release
            ),
            None,
        )


def wait_for(what: str, is_true: Callable[[], bool], timeout_s: float) -> None:
    """Poll until something holds.

    Raises
    ------
    DemoError
        If it does not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise DemoError(f"{what} did not happen within {timeout_s:.0f} s: look at the logs.")
        time.sleep(0.2)
