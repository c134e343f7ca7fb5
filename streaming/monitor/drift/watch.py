"""Feeds each role's drift detector, and hands its state to the database."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from streaming.monitor.drift.detector import PIECE, DriftDetector, Finding
from streaming.monitor.drift.reference import Reference
from streaming.monitor.observations import FEATURES, SCORES, Payment, ReleaseDecision
from streaming.monitor.promises import Promise
from streaming.monitor.store.state import DriftState
from streaming.settings.drift import DriftSettings

log = structlog.get_logger()


@dataclass
class _Watched:
    """A release, its detector, and what the detector found up to a step."""

    release: str
    detector: DriftDetector
    steps: int = -1
    findings: str = "[]"

    def state_of(self, role: int) -> DriftState:
        """Return what is kept of it; findings are put into words again only when a window has closed."""
        if self.steps != self.detector.steps:
            self.steps, self.findings = self.detector.steps, _encode(worst(self.detector))
        return DriftState(role, self.release, _encode(self.detector.state()), self.findings)


class DriftWatch:
    """A detector for the release that each role decides with now.

    A new release has a reference of its own, so it begins with a new detector: it is not drift itself.

    Parameters
    ----------
    settings : DriftSettings
    kept : mapping of int to DriftState
        Role to the detector as it was left.
    """

    def __init__(self, settings: DriftSettings, kept: Mapping[int, DriftState]) -> None:
        self._settings = settings
        self._kept = dict(kept)
        self._watched: dict[int, _Watched] = {}

    def follow(self, role: int, release: str, promise: Promise) -> None:
        """Watch a release from now on, where it is another one and its reference is known."""
        if promise.reference is None or self.watches(role, release):
            return
        try:
            reference = Reference.from_document(promise.reference)
            self._watched[role] = _Watched(release, self._detector(role, release, reference))
        except ValueError as error:
            log.warning("no drift detection", release=release, error=str(error))

    def watches(self, role: int, release: str) -> bool:
        """Return whether a release has the role's detector."""
        return role in self._watched and self._watched[role].release == release

    def _detector(self, role: int, release: str, reference: Reference) -> DriftDetector:
        kept = self._kept.pop(role, None)
        if kept is not None and kept.release == release:
            return DriftDetector.restored(reference, self._settings, msgspec.json.decode(kept.state))
        return DriftDetector(reference, self._settings)

    def update(self, payments: Sequence[Payment], decisions: Sequence[ReleaseDecision]) -> list[DriftState]:
        """Take a batch in; return the detectors that it changed, as they are now."""
        for start in range(0, len(payments), PIECE):
            columns = list(zip(*(one.values for one in payments[start : start + PIECE]), strict=True))
            for one in self._watched.values():
                _feed(one.detector, FEATURES, columns)
        for role, watched in self._watched.items():
            scores = [one.scores for one in decisions if one.role == role and one.release == watched.release]
            if scores:
                _feed(watched.detector, SCORES, list(zip(*scores, strict=True)))
        changed = self._watched.items() if payments or decisions else ()
        return [one.state_of(role) for role, one in changed]


def _feed(detector: DriftDetector, names: Iterable[str], columns: Sequence[Sequence[float]]) -> None:
    for name, values in zip(names, columns, strict=True):
        detector.update(name, values)


def worst(detector: DriftDetector) -> list[Finding]:
    """Return one finding for each series: the one that says most."""
    found = (detector.summary(name) for name in (*FEATURES, *SCORES))
    return [one for one in found if one is not None]


def _encode(found: object) -> str:
    return msgspec.json.encode(found).decode()
