"""Feeds each role's drift detector, and hands its state to the database."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import structlog

from streaming.monitor.drift.detector import DriftDetector, Finding
from streaming.monitor.drift.reference import Reference
from streaming.monitor.observations import FEATURES, SCORES, Payment, ReleaseDecision
from streaming.monitor.promises import Promise
from streaming.monitor.store.state import DriftState
from streaming.settings.drift import DriftSettings

log = structlog.get_logger()


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
        self._detectors: dict[int, tuple[str, DriftDetector]] = {}

    def follow(self, role: int, release: str, promise: Promise) -> None:
        """Watch a release from now on, where it is another one and its reference is known."""
        if promise.reference is None or self.watches(role, release):
            return
        try:
            reference = Reference.from_document(promise.reference)
            self._detectors[role] = release, self._detector(role, release, reference)
        except ValueError as error:
            log.warning("no drift detection", release=release, error=str(error))

    def watches(self, role: int, release: str) -> bool:
        """Return whether a release has the role's detector."""
        return role in self._detectors and self._detectors[role][0] == release

    def _detector(self, role: int, release: str, reference: Reference) -> DriftDetector:
        kept = self._kept.pop(role, None)
        if kept is not None and kept.release == release:
            return DriftDetector.restored(reference, self._settings, json.loads(kept.state))
        return DriftDetector(reference, self._settings)

    def update(self, payments: Sequence[Payment], decisions: Sequence[ReleaseDecision]) -> list[DriftState]:
        """Take a batch in; return the detectors that it changed, as they are now."""
        if payments:
            columns = list(zip(*(one.values for one in payments), strict=True))
            for _, detector in self._detectors.values():
                _feed(detector, FEATURES, columns)
        for role, (release, detector) in self._detectors.items():
            scores = [one.scores for one in decisions if one.role == role and one.release == release]
            if scores:
                _feed(detector, SCORES, list(zip(*scores, strict=True)))
        return [self._state(role) for role in self._detectors] if payments or decisions else []

    def _state(self, role: int) -> DriftState:
        release, detector = self._detectors[role]
        findings = [asdict(one) for one in worst(detector)]
        return DriftState(role, release, json.dumps(detector.state()), json.dumps(findings))


def _feed(detector: DriftDetector, names: Iterable[str], columns: Sequence[Sequence[float]]) -> None:
    for name, values in zip(names, columns, strict=True):
        detector.update(name, values)


def worst(detector: DriftDetector) -> list[Finding]:
    """Return one finding for each series: the one that says most."""
    found = (detector.summary(name) for name in (*FEATURES, *SCORES))
    return [one for one in found if one is not None]
