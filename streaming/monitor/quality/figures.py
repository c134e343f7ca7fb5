"""Turns sums over cells into the figures of a window, and into those of two releases against each other."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streaming.monitor.observations import APPROVE, DECISIONS, DECLINE, REVIEW, UNALARMED_REVIEW
from streaming.monitor.quality.intervals import (
    Figure,
    linearised,
    paired_difference,
    quantile,
    quantile_of,
    share,
    unknown,
    weighted_shares,
)
from streaming.monitor.store.cells import DELAYS_S, ORIGINS


@dataclass(frozen=True)
class Slice:
    """Which cells to add up: a level, a role, a release, and the slices from `start` on."""

    level: int
    role: int
    release: int
    start: int


@dataclass(frozen=True)
class Labelled:
    """One kind of labelled transactions: how many, their amounts and squared amounts added up."""

    decision: int
    band: int
    origin: int
    control: int
    fraud: int
    delay: int
    count: int
    amount: float
    square: float


@dataclass
class Sums:
    """What the cells of a slice add up to."""

    counts: Counter[tuple[int, int]] = field(default_factory=Counter)  # by decision and band
    amounts: Counter[tuple[int, int]] = field(default_factory=Counter)
    labelled: list[Labelled] = field(default_factory=list)

    def decided(self, *decisions: int) -> int:
        """Return how many were decided, in one of these ways where any is named."""
        return sum(
            count for (decision, _), count in self.counts.items() if not decisions or decision in decisions
        )

    def frauds(self, *decisions: int) -> int:
        """Return how many labelled frauds there are, with one of these decisions where any is named."""
        return sum(one.count for one in self.labelled if one.fraud and _among(one.decision, decisions))

    def labels(self, *decisions: int) -> int:
        """Return how many labelled ones there are, with one of these decisions where any is named."""
        return sum(one.count for one in self.labelled if _among(one.decision, decisions))


def _among(decision: int, decisions: Sequence[int]) -> bool:
    return not decisions or decision in decisions


# A model is alarmed: what recall, precision and alarm rate are about, as in training. Handled costs.
ALARMS = (REVIEW, DECLINE)
# Those of streaming/labels/strata.py, as the export weighs them; the alarmed first.
CONTROL_STRATA = (ALARMS, (UNALARMED_REVIEW,), (APPROVE,))
HANDLED = (REVIEW, DECLINE, UNALARMED_REVIEW)
REVIEWS = (REVIEW, UNALARMED_REVIEW)


def add_up(connection: sqlite3.Connection, where: Slice) -> Sums:
    """Return the sums of a slice."""
    condition = "level = ? AND role = ? AND release = ? AND start >= ?"
    values = (where.level, where.role, where.release, where.start)
    sums = Sums()
    for decision, band, count, amount in connection.execute(
        f"SELECT decision, band, sum(count), sum(amount) FROM decided WHERE {condition} "
        "GROUP BY decision, band",
        values,
    ):
        sums.counts[decision, band] = count
        sums.amounts[decision, band] = amount
    columns = "decision, band, origin, control, fraud, delay"
    rows = connection.execute(
        f"SELECT {columns}, sum(count), sum(amount), sum(square) FROM labelled WHERE {condition} "
        f"GROUP BY {columns} HAVING sum(count) > 0",
        values,
    )
    sums.labelled = [Labelled(*row) for row in rows]
    return sums


@dataclass(frozen=True)
class Judgement:
    """How figures are made.

    Attributes
    ----------
    confidence : float
        Of the intervals.
    review_cost : float
        Cost of an alarm, account currency.
    bounds : sequence of float
        Of the amount bands.
    """

    confidence: float
    review_cost: float
    bounds: Sequence[float]

    @property
    def z(self) -> float:
        """The interval's reach in standard deviations."""
        return quantile_of(self.confidence)


def window_figures(sums: Sums, how: Judgement) -> dict[str, Any]:
    """Return everything that is said about a window."""
    z, decided, alarms = how.z, sums.decided(), sums.decided(*ALARMS)
    return {
        "decisions": decided,
        "alarms": alarms,
        "reviews": sums.decided(*REVIEWS),
        "declines": sums.decided(DECLINE),
        "labels": _labels(sums),
        "alarm_rate": share(alarms, decided, z)._asdict(),
        "review_load": share(sums.decided(*REVIEWS), decided, z)._asdict(),
        "recall": recall(sums, z)._asdict(),
        "precision": precision(sums, z)._asdict(),
        "fraud_rate": share(sums.frauds(), decided, z)._asdict(),
        "cost_saved": cost_saved(sums, how)._asdict(),
        "label_delay_s": _delays(sums, z),
        "control": _control(sums, how.confidence),
        "amount_bands": _bands(sums, how),
    }


def recall(sums: Sums, z: float) -> Figure:
    """Return the part of the labelled frauds that were alarmed."""
    return share(sums.frauds(*ALARMS), sums.frauds(), z)


def precision(sums: Sums, z: float) -> Figure:
    """Return the part of the labelled alarms that are frauds."""
    return share(sums.frauds(*ALARMS), sums.labels(*ALARMS), z)


def cost_saved(sums: Sums, how: Judgement) -> Figure:
    """Return which part of the labelled frauds' amount was saved, reviews and declines paid for.

    ``1 - (missed amount + review cost * handled) / amount of all labelled frauds``, as ``training`` has it.
    """
    frauds = [one for one in sums.labelled if one.fraud]
    at_risk = sum(one.amount for one in frauds)
    if at_risk <= 0:
        return unknown()
    cost, handled = how.review_cost, sums.decided(*HANDLED)
    missed = sum(one.amount for one in frauds if one.decision == APPROVE)
    lost = (missed + cost * handled) / at_risk
    squares = 0.0
    for one in frauds:
        if one.decision == APPROVE:
            squares += (1 - lost) ** 2 * one.square
        else:
            squares += cost**2 * one.count - 2 * cost * lost * one.amount + lost**2 * one.square
    others = handled - sums.frauds(*HANDLED)
    squares = (squares + cost**2 * others) / at_risk**2
    return linearised(1 - lost, squares, sums.frauds(), how.z)


def _labels(sums: Sums) -> dict[str, Any]:
    by_origin = {name: {"frauds": 0, "genuine": 0} for name in ORIGINS}
    for one in sums.labelled:
        by_origin[ORIGINS[one.origin]]["frauds" if one.fraud else "genuine"] += one.count
    frauds = sums.frauds()
    return {"frauds": frauds, "genuine": sums.labels() - frauds, "by_origin": by_origin}


def _delays(sums: Sums, z: float) -> dict[str, Any]:
    counts = [0] * (len(DELAYS_S) + 1)
    for one in sums.labelled:
        counts[one.delay] += one.count
    return {
        "median": quantile(counts, DELAYS_S, 0.5, z)._asdict(),
        "p90": quantile(counts, DELAYS_S, 0.9, z)._asdict(),
    }


def _control(sums: Sums, confidence: float) -> dict[str, Any]:
    """Figures on the random control sample alone, each transaction weighing what it stands for.

    Frauds among what was declined are found by everybody, missed ones by chance or by a customer: on all
    labels recall is flattered. In the sample chance is known (Dal Pozzolo et al., 2018, keep them apart).
    """
    sample = [one for one in sums.labelled if one.control]
    strata = []
    for decisions in CONTROL_STRATA:
        of = [one for one in sample if one.decision in decisions]
        frauds = sum(one.count for one in of if one.fraud)
        strata.append((sums.decided(*decisions), sum(one.count for one in of), frauds))
    rate, found = weighted_shares(strata, confidence)
    _, sampled, frauds = strata[0]
    right = share(frauds, sampled, quantile_of(confidence))
    return {"recall": found._asdict(), "precision": right._asdict(), "fraud_rate": rate._asdict()}


def _bands(sums: Sums, how: Judgement) -> list[dict[str, Any]]:
    edges = [0.0, *how.bounds, None]
    found = []
    for band in range(len(how.bounds) + 1):
        decided = sum(count for (_, of), count in sums.counts.items() if of == band)
        amount = float(sum(value for (_, of), value in sums.amounts.items() if of == band))
        frauds = [one for one in sums.labelled if one.fraud and one.band == band]
        count, fraud_amount = sum(one.count for one in frauds), sum(one.amount for one in frauds)
        found.append(
            {
                "from": edges[band],
                "to": edges[band + 1],
                "decisions": decided,
                "amount": amount,
                "frauds": count,
                "fraud_amount": float(fraud_amount),
                "fraud_rate": share(count, decided, how.z)._asdict(),
                "fraud_amount_share": fraud_amount / amount if amount > 0 else None,
            }
        )
    return found


def paired_figures(sums: Sums, how: Judgement) -> dict[str, Any]:
    """Return what is said about two releases on the same transactions: challenger minus champion."""
    agreement = {f"{first}/{second}": 0 for first in DECISIONS for second in DECISIONS}
    for (code, _), count in sums.counts.items():
        agreement["/".join(_name(one) for one in divmod(code, CODES))] += count
    compared = sums.decided()
    only = [sums.decided(*codes) for codes in (ONLY_CHAMPION, ONLY_CHALLENGER)]
    caught = [sums.frauds(*codes) for codes in (ONLY_CHAMPION, ONLY_CHALLENGER)]
    frauds = sums.frauds()
    return {
        "compared": compared,
        "agreement": agreement,
        "only_champion_alarms": only[0],
        "only_challenger_alarms": only[1],
        "frauds": frauds,
        "genuine": sums.labels() - frauds,
        "only_champion_caught": caught[0],
        "only_challenger_caught": caught[1],
        "differences": {
            "alarm_rate": paired_difference(only[0], only[1], compared, how.z)._asdict(),
            "recall": paired_difference(caught[0], caught[1], frauds, how.z)._asdict(),
            "precision": _precision_difference(sums, how.z)._asdict(),
            "cost_saved": _cost_difference(sums, how)._asdict(),
        },
    }


CODES = 4


def _name(decision: int) -> str:
    return DECISIONS[REVIEW if decision == UNALARMED_REVIEW else decision]


def _codes(kinds: tuple[int, ...], champion: bool, challenger: bool) -> tuple[int, ...]:
    """Return the pairs of decisions in which each is, or is not, one of these kinds."""
    return tuple(
        CODES * first + second
        for first in range(CODES)
        for second in range(CODES)
        if (first in kinds) == champion and (second in kinds) == challenger
    )


ONLY_CHAMPION, ONLY_CHALLENGER = _codes(ALARMS, True, False), _codes(ALARMS, False, True)
BY_BOTH = _codes(ALARMS, True, True)
BY_CHAMPION, BY_CHALLENGER = (*ONLY_CHAMPION, *BY_BOTH), (*ONLY_CHALLENGER, *BY_BOTH)


def _precision_difference(sums: Sums, z: float) -> Figure:
    sides = (BY_CHAMPION, BY_CHALLENGER)
    alarms = [sums.labels(*codes) for codes in sides]
    if not all(alarms):
        return unknown(min(alarms))
    shares = [sums.frauds(*codes) / n for codes, n in zip(sides, alarms, strict=True)]
    squares = 0.0
    for one in sums.labelled:
        first, second = (
            (one.fraud - p) / n if one.decision in codes else 0.0
            for codes, p, n in zip(sides, shares, alarms, strict=True)
        )
        squares += one.count * (second - first) ** 2
    return linearised(shares[1] - shares[0], squares, min(alarms), z)


def _cost_difference(sums: Sums, how: Judgement) -> Figure:
    frauds = [one for one in sums.labelled if one.fraud]
    at_risk = sum(one.amount for one in frauds)
    if at_risk <= 0:
        return unknown()
    cost = how.review_cost
    more = dict.fromkeys(_codes(HANDLED, True, False), -1) | dict.fromkeys(_codes(HANDLED, False, True), 1)
    saved = sum(more.get(one.decision, 0) * one.amount for one in frauds)
    paid = cost * sum(more.get(code, 0) * count for (code, _), count in sums.counts.items())
    value = (saved - paid) / at_risk
    squares, others = 0.0, sums.decided(*more)
    for one in frauds:
        sign = more.get(one.decision, 0)
        # A caught fraud changes the difference by sign * (amount - cost), and its base by its amount.
        slope, fixed = sign - value, -sign * cost
        squares += slope**2 * one.square + 2 * slope * fixed * one.amount + fixed**2 * one.count
        others -= one.count if sign else 0
    return linearised(value, (squares + cost**2 * others) / at_risk**2, sums.frauds(), how.z)
