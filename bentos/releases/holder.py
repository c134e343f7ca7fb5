"""The releases a runner process has loaded: a thread follows the store and loads, checks and drops them.

One thread loads for the whole life of the process: every further one would keep a memory arena of its own.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Generic, TypeVar

from bentos.compat.memory import give_memory_back
from bentos.errors import ReleaseError
from bentos.releases.board import Board
from bentos.releases.choice import Choice
from bentos.releases.lease import Lease
from bentos.releases.store import ModelStore

GATEWAY = "gateway"
TICK_S = 0.25
# Some changes touch neither store nor board: a gateway that died, a load that is due again.
LOOK_ANYWAY_TICKS = 20
ASKED_S = 30.0

# Below BentoML's logger: of any other it shows warnings only.
log = logging.getLogger(f"bentoml.{__name__}")
Model = TypeVar("Model")


class ReleaseHolder(Generic[Model]):
    """Keeps loaded what is to be served and what a gateway still asks for, by the store's version.

    Parameters
    ----------
    role : str
        How this runner signs its notes: ``neural_net`` or ``xgboost``.
    model_name : str
        The model's name in the store.
    load : callable
        Version to a loaded, warm and checked model; raises ReleaseError for one that cannot serve.
    store, choice, board
        Where models lie, which pair is to be served, and what the gateways say.
    """

    def __init__(
        self,
        role: str,
        model_name: str,
        load: Callable[[str], Model],
        store: ModelStore,
        choice: Choice,
        board: Board,
    ) -> None:
        self._role, self._model_name, self._load = role, model_name, load
        self._store, self._choice, self._board = store, choice, board
        self._models: dict[str, Model] = {}
        self._leases: dict[str, Lease] = {}
        self._refused: dict[str, str] = {}
        self._asked: dict[str, float] = {}
        self._asking: dict[str, list[Future[Model]]] = {}
        self._seen: tuple[str, int] = ("", 0)
        self._chosen: str | None = None
        self._note: dict[str, object] = {}
        self._is_mute = False
        self._ticks = 0
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name=f"{role} releases", daemon=True)
        self._started = threading.Event()

    def start(self, timeout_s: float = 60.0) -> None:
        """Load what is to be served, then follow the store until `stop`."""
        self._thread.start()
        self._started.wait(timeout_s)

    def stop(self) -> None:
        """Stop following and let go of the store."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=5.0)
        self._board.close()

    def holds(self, version: str) -> bool:
        """Say whether a version can be asked for scores now."""
        return version in self._models

    def chosen(self) -> Model:
        """Return the model of the release that is to be served.

        Raises
        ------
        ReleaseError
            If it is not loaded.
        """
        model = self._models.get(self._chosen or "")
        if model is None:
            raise ReleaseError(f"The {self._role} runner has not loaded the release that is to be served.")
        return model

    def ask(self, version: str) -> None:
        """Have a version loaded, as soon as may be."""
        with self._lock:
            self._asked[version] = time.monotonic() + ASKED_S
            self._asking.setdefault(version, [])
        self._wake.set()

    async def obtain(self, version: str) -> Model:
        """Return a model, loaded if need be: after a restart a gateway may ask for an older release.

        Raises
        ------
        ReleaseError
            If it cannot be loaded.
        """
        loaded = self._models.get(version)
        if loaded is not None:
            return loaded
        promise: Future[Model] = Future()
        with self._lock:
            self._asking.setdefault(version, []).append(promise)
            self._asked[version] = time.monotonic() + ASKED_S
        self._wake.set()
        return await asyncio.wrap_future(promise)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except _TryAgainError:
                pass
            except Exception:  # whatever it is, what is loaded goes on serving
                log.exception("The %s runner could not look after its releases.", self._role)
            self._started.set()
            self._wake.wait(TICK_S)
            self._wake.clear()

    def _look(self) -> None:
        self._ticks += 1
        seen = (self._store.stamp(), self._board.stamp())
        if seen == self._seen and not self._asking and self._ticks % LOOK_ANYWAY_TICKS:
            return
        if seen[0] != self._seen[0]:
            self._refused.clear()  # another promotion: what was refused may have been mended
        needed, may_drop = self._needed()
        for version in sorted(needed - self._models.keys() - self._refused.keys()):
            self._bring(version)
        unneeded = self._models.keys() - needed if may_drop else set()
        for version in unneeded:
            del self._models[version]
            self._leases.pop(version).close()
        if unneeded:
            give_memory_back()
        self._tell(seen[0])
        self._seen = (seen[0], self._board.stamp())

    def _needed(self) -> tuple[set[str], bool]:
        """Return the versions to hold, and whether others may be dropped."""
        gateways = self._board.notes(GATEWAY)
        needed = {version for note in gateways for version in note["needs"]}
        with suppress(ReleaseError):  # the gateway says it
            self._chosen = self._choice().version
            needed.add(self._chosen)
        now = time.monotonic()
        with self._lock:
            self._asked = {version: until for version, until in self._asked.items() if until > now}
            needed |= self._asked.keys()
            for version in self._asking:  # a new question gets a new answer
                self._refused.pop(version, None)
        # A gateway that is being started again serves what is loaded.
        return needed, bool(gateways)

    def _bring(self, version: str) -> None:
        lease = None
        try:
            lease = Lease(self._store.folder / self._model_name / version)
            self._models[version] = self._load(version)
            self._leases[version] = lease
        except Exception as error:  # each library has its own for a file it cannot read
            if lease is not None:
                lease.close()
            reason = str(error) if isinstance(error, ReleaseError) else f"it cannot be loaded ({error!r})"
            self._refused[version] = reason[:500]

    def _tell(self, generation: str) -> None:
        """Answer those who asked, and post what is loaded where that has changed."""
        with self._lock:
            asking, self._asking = self._asking, {}
        for version, promises in asking.items():
            for promise in promises:
                self._answer(version, promise)
        note: dict[str, object] = {
            "generation": generation,
            "ready": sorted(self._models),
            "refused": dict(self._refused),
        }
        if note == self._note:
            return
        try:
            self._board.post(self._role, note)
        except OSError as error:  # a full disk: tried again at the next look
            if not self._is_mute:
                log.warning("The %s runner cannot say what it has loaded: %s", self._role, error)
            self._is_mute = True
            raise _TryAgainError from error
        self._note, self._is_mute = note, False

    def _answer(self, version: str, promise: Future[Model]) -> None:
        with suppress(InvalidStateError):  # the caller has gone
            if version in self._models:
                promise.set_result(self._models[version])
            elif version in self._refused:
                promise.set_exception(ReleaseError(self._refused[version]))
            else:  # asked while this look was under way
                with self._lock:
                    self._asking.setdefault(version, []).append(promise)


class _TryAgainError(Exception):
    """What was seen is to be looked at once more."""
