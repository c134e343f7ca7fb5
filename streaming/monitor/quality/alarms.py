"""Decides when figures are bad enough to wake somebody, and when a retraining is advised."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from streaming.monitor.observations import ROLES
from streaming.monitor.quality.intervals import Figure

KINDS = ("recall", "precision", "alarm_rate", "drift")


class Alarm(NamedTuple):
    """Something is wrong with a release.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    role : int
    series : str
        Which input or score drifts; empty for the other kinds.
    sentence : str
        For people.
    """

    kind: str
    role: int
    release: str
    series: str
    sentence: str

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What makes it the same alarm when it is looked at again."""
        return self.kind, self.role, self.release, self.series


@dataclass(frozen=True)
class Bounds:
    """What a release promised, and how far it may be missed."""

    recall: float | None
    precision: float | None
    alarm_rate: float | None
    recall_tolerance: float
    precision_tolerance: float
    alarm_rate_factor: float
    min_frauds: int


@dataclass(frozen=True)
class Recent:
    """The latest figures of a release, at the confidence of an alarm."""

    recall: Figure
    precision: Figure
    alarm_rate: Figure


def judge_quality(role: int, release: str, recent: Recent, bounds: Bounds) -> Iterable[Alarm]:
    """Yield an alarm for each figure that is surely beyond its bound: its whole interval is."""
    for kind, figure, promised, tolerance in (
        ("recall", recent.recall, bounds.recall, bounds.recall_tolerance),
        ("precision", recent.precision, bounds.precision, bounds.precision_tolerance),
    ):
        if promised is None or figure.high is None or figure.n < bounds.min_frauds:
            continue
        if figure.high < promised - tolerance:
            what = "labelled frauds" if kind == "recall" else "labelled alarms"
            yield Alarm(kind, role, release, "", _sentence(kind, role, release, figure, promised, what))
    promised, figure = bounds.alarm_rate, recent.alarm_rate
    if promised and figure.low is not None and figure.high is not None:
        factor = bounds.alarm_rate_factor
        if figure.low > factor * promised or figure.high < promised / factor:
            sentence = _sentence("alarm_rate", role, release, figure, promised, "decisions")
            yield Alarm("alarm_rate", role, release, "", sentence)


def _sentence(kind: str, role: int, release: str, figure: Figure, promised: float, what: str) -> str:
    digits = 2 if kind != "alarm_rate" else 5
    value, low, high = (f"{number or 0.0:.{digits}f}" for number in figure[:3])
    name = {"recall": "Recall", "precision": "Precision", "alarm_rate": "The alarm rate"}[kind]
    return (
        f"{name} of the {ROLES[role]}, release {release}, is {value} ({low} to {high}, {figure.n} {what}); "
        f"the release promised {promised:.{digits}f}."
    )


def drift_alarm(
    role: int, release: str, series: str, divergence: float, threshold: float, rows: int
) -> Alarm:
    """Return the alarm for an input or score that is distributed otherwise than in training."""
    sentence = (
        f"{series} drifts away from what release {release} was trained on: divergence {divergence:.3f} over "
        f"{rows:,} transactions, bound {threshold:.3f}."
    )
    return Alarm("drift", role, release, series, sentence)


class Advice(NamedTuple):
    """Whether to train again, and why."""

    advised: bool
    sentence: str
    reasons: tuple[str, ...]


def advise(active: Mapping[str, list[str]], release: str | None) -> Advice:
    """Return whether a retraining is advised.

    Missed frauds and false alarms are what a release is for; drift alone, or an alarm rate out of bounds with
    no labels yet, say that both will follow: the labels come weeks later.

    Parameters
    ----------
    active : mapping of str to list of str
        Kind to the sentences of the champion's alarms.
    release : str or None
        The champion.

    Examples
    --------
    >>> advise({}, "12").sentence
    'No retraining is needed: release 12 keeps what it promised.'
    >>> advise({"drift": ["V14 drifts."]}, "12").advised
    True
    """
    if release is None:
        return Advice(False, "Nothing can be advised: no decision has been seen yet.", ())
    reasons = tuple(sentence for kind in KINDS for sentence in active.get(kind, ()))
    if not reasons:
        return Advice(False, f"No retraining is needed: release {release} keeps what it promised.", ())
    more = f" And {len(reasons) - 1} more." if len(reasons) > 1 else ""
    return Advice(True, f"Retraining is advised: {reasons[0]}{more}", reasons)
