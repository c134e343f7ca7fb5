"""How a gateway process changes over to another release while it serves.

It looks at the store four times a second. Once every runner process says that it has the new pair loaded and
checked, requests that come from then on are answered with it; those under way end with the old one. Every
gateway process sees the same notes, so all change over within a look of each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from bentos.errors import NoReleaseError, ReleaseError
from bentos.releases.board import Board
from bentos.releases.choice import Choice
from bentos.releases.holder import GATEWAY, TICK_S
from bentos.releases.lease import Lease
from bentos.releases.release import Release
from bentos.releases.store import NEURAL_NET, ModelStore

RUNNERS = ("neural_net", "xgboost")
SWAPPED, REFUSED = "swapped", "refused"

# Below BentoML's logger: of any other it shows warnings only.
log = logging.getLogger(f"bentoml.{__name__}")


class InUse(Protocol):
    """What answers requests with one release."""

    requests: int
    """How many it is answering."""


class ReleaseFollower:
    """Decides which release a gateway process answers with.

    Parameters
    ----------
    store, choice, board
        Where models lie, which pair is to be served, and what the other processes say.
    read : callable
        Version to Release; raises ReleaseError for one that this service cannot serve.
    change_over : callable
        Answers with a release from now on; returns what does.
    count : callable
        Told the outcome of every swap, once a service.
    """

    def __init__(
        self,
        store: ModelStore,
        choice: Choice,
        board: Board,
        read: Callable[[str], Release],
        change_over: Callable[[Release], InUse],
        count: Callable[[str], None],
    ) -> None:
        self._store, self._choice, self._board = store, choice, board
        self._read, self._change_over, self._count = read, change_over, count
        self._retiring: list[tuple[str, InUse, Lease | None]] = []
        self._refused: set[tuple[str, str]] = set()
        self._seen = ""
        self._wanted: str | None = None
        self._is_confirmed = False
        self._posted: dict[str, object] = {}
        self._is_posting_refused = False

    def begin(self) -> Release:
        """Choose the release to begin with, and answer with it.

        A process that is started again beside others takes what they serve; one that is started alone takes
        what the runners have loaded; and where nothing is loaded yet, what is to be served.

        Raises
        ------
        ReleaseError
            If there is none.
        """
        release = self._first_release()
        self._serve(release)
        self._post()
        return release

    async def follow(self) -> None:
        """Change over whenever another release is to be served; runs until cancelled."""
        while True:
            try:
                await self._look()
            except Exception:  # whatever it is, what is served goes on being served
                log.exception("The gateway could not look after its release.")
            await asyncio.sleep(TICK_S)

    @property
    def version(self) -> str:
        """The store's version of the release that is served."""
        return self._release.version

    def close(self) -> None:
        """Let go of the store."""
        self._board.close()

    async def _look(self) -> None:
        self._forget_finished()
        wanted, generation = self._choose(), self._seen
        is_served = wanted == self._release.version and self._is_confirmed
        if wanted is None or is_served or (wanted, generation) in self._refused:
            return
        notes = [note for runner in RUNNERS for note in self._board.notes(runner)]
        reasons = (note["refused"].get(wanted) for note in notes if note["generation"] == generation)
        reason = next(filter(None, reasons), None)
        if reason is not None:
            self._refuse(wanted, reason)
        elif wanted in self._ready():
            self._is_confirmed = True
            if wanted != self._release.version:
                await self._swap(wanted)

    def _choose(self) -> str | None:
        """Return the version to serve; the store is read only when it has changed."""
        stamp = self._store.stamp()
        if stamp == self._seen:
            return self._wanted
        self._seen, self._wanted = stamp, None
        self._refused.clear()
        try:
            self._wanted = self._choice().version
        except NoReleaseError as error:
            if self._board.claim(f"{stamp}-none"):
                log.warning("%s Release %s is served on.", error, self._release.number)
        except ReleaseError as error:
            self._refuse("", str(error))
        return self._wanted

    async def _swap(self, version: str) -> None:
        try:
            release = await asyncio.to_thread(self._read, version)
        except ReleaseError as error:
            self._refuse(version, str(error))
            return
        before = self._release.number
        self._serve(release)
        self._post()
        if self._board.claim(f"{self._seen}-{version}-{SWAPPED}"):
            self._count(SWAPPED)
            log.info("Release %s is served now, after release %s.", release.number, before)

    def _serve(self, release: Release) -> None:
        try:
            lease = Lease(self._store.folder / NEURAL_NET / release.version)
        except ReleaseError:  # loaded by the runners, and gone from the store since
            lease = None
        in_use = self._change_over(release)
        self._release = release
        self._retiring.append((release.version, in_use, lease))

    def _refuse(self, version: str, reason: str) -> None:
        self._refused.add((version, self._seen))
        if self._board.claim(f"{self._seen}-{version}-{REFUSED}"):
            self._count(REFUSED)
            served_on = (
                "" if version == self._release.version else f" Release {self._release.number} is served on."
            )
            log.error("The release in the store (version %s) is refused: %s%s", version, reason, served_on)

    def _forget_finished(self) -> None:
        """Tell the runners when the last answer of an old release has been given."""
        *old, current = self._retiring
        still = [entry for entry in old if entry[1].requests]
        for entry in old:
            if entry not in still and entry[2] is not None:
                entry[2].close()
        self._retiring = [*still, current]
        self._post()

    def _post(self) -> None:
        note: dict[str, object] = {
            "serves": self._release.version,
            "needs": sorted({version for version, _, _ in self._retiring}),
        }
        if note == self._posted:
            return
        try:
            self._board.post(GATEWAY, note)
        except OSError as error:  # a full disk: tried again at the next look; the runners keep what they have
            if not self._is_posting_refused:
                log.warning("The gateway cannot say what it serves: %s", error)
            self._is_posting_refused = True
            return
        self._posted, self._is_posting_refused = note, False

    def _ready(self) -> set[str]:
        """Return the versions that every process of both runners has loaded."""
        loaded = [[set(note["ready"]) for note in self._board.notes(runner)] for runner in RUNNERS]
        if not all(loaded):
            return set()
        return set.intersection(*(versions for runner in loaded for versions in runner))

    def _first_release(self) -> Release:
        ready = self._ready()
        wanted: str | None = None
        error: ReleaseError | None = None
        try:
            wanted = self._choice().version
        except ReleaseError as refusal:
            error = refusal
        served = [str(note["serves"]) for note in self._board.notes(GATEWAY)]
        for version in dict.fromkeys([*served, wanted, *sorted(ready)]):
            if version is not None and version in ready:
                try:
                    return self._read(version)
                except ReleaseError as refusal:
                    error = refusal
        if wanted is None:
            raise error or ReleaseError("There is no release to serve.")
        return self._read(wanted)
