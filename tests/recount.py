"""Counts the monitor's figures again from the records: own code, one transaction at a time, no cells."""

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tests.monitored_stream import Sent

Z = 1.959963984540054
RANK = {"chargeback": 0, "investigation": 1, "control": 2}
ALARMS = ("review", "decline")  # "costly" is a review for its expected loss alone


class Case(NamedTuple):
    """A transaction with its decisions and the label that holds."""

    at_ms: int
    amount: float
    decisions: dict[str, tuple[str, str]]  # role: (release, decision)
    is_fraud: bool | None
    origin: str | None
    control: bool


def cases(records: Iterable[Sent]) -> list[Case]:
    """Join the records of all topics."""
    transactions: dict[tuple[int, int], tuple[int, float, str]] = {}
    decisions: defaultdict[tuple[int, int], dict[str, tuple[str, str]]] = defaultdict(dict)
    labels: defaultdict[str, list[tuple[int, int, int, str, bool | None]]] = defaultdict(list)
    for one in records:
        try:
            value = json.loads(one.value) if one.value is not None else None
        except ValueError:
            continue
        if one.stream == "transactions":
            transactions[one.partition, one.offset] = (
                one.timestamp_ms,
                value["Amount"],
                value["transaction_id"],
            )
        elif one.stream == "labels":
            name, verdict, moment, origin = (
                ((one.key or b"").decode(), None, one.timestamp_ms, "investigation")
                if value is None
                else (value["transaction_id"], value["is_fraud"], value["labelled_at_ms"], value["origin"])
            )
            labels[name].append(
                (moment, RANK[origin], {None: 0, False: 1, True: 2}[verdict], origin, verdict)
            )
        else:
            source = value["source"]["partition"], value["source"]["offset"]
            role = "champion" if one.stream == "decisions" else "challenger"
            decision = value["decision"] if value["is_fraud"] or value["decision"] == "approve" else "costly"
            decisions[source].setdefault(role, (value["release"], decision))
    found = []
    for source, (at_ms, amount, name) in transactions.items():
        given = labels.get(name, [])
        holds = max(given, key=lambda label: label[:3], default=None)
        control = any(origin == "control" and verdict is not None for *_, origin, verdict in given)
        verdict = holds[4] if holds else None
        origin = holds[3] if holds and verdict is not None else None
        found.append(Case(at_ms, amount, decisions[source], verdict, origin, control))
    return found


def wilson(hits: float, n: int) -> dict[str, Any]:
    """Return Wilson's interval, as the roots of its quadratic."""
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0}
    a, b, c = 1 + Z * Z / n, -(2 * hits / n + Z * Z / n), (hits / n) ** 2
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return {"value": hits / n, "low": (-b - root) / (2 * a), "high": (-b + root) / (2 * a), "n": n}


def window(
    all_cases: Sequence[Case], role: str, release: str, since_ms: int, cost: float = 1.0
) -> dict[str, Any]:
    """Return the figures of a window."""
    mine = [c for c in all_cases if c.decisions.get(role, ("",))[0] == release and c.at_ms >= since_ms]

    def is_alarm(case: Case) -> bool:
        return case.decisions[role][1] in ALARMS

    alarms = [c for c in mine if is_alarm(c)]
    labelled = [c for c in mine if c.is_fraud is not None]
    frauds = [c for c in labelled if c.is_fraud]
    caught = [c for c in frauds if is_alarm(c)]
    by_origin = Counter((c.origin, c.is_fraud) for c in labelled)
    return {
        "decisions": len(mine),
        "alarms": len(alarms),
        "labels": {
            "frauds": len(frauds),
            "genuine": len(labelled) - len(frauds),
            "by_origin": {
                origin: {"frauds": by_origin[origin, True], "genuine": by_origin[origin, False]}
                for origin in RANK
            },
        },
        "alarm_rate": wilson(len(alarms), len(mine)),
        "recall": wilson(len(caught), len(frauds)),
        "precision": wilson(len(caught), sum(is_alarm(c) for c in labelled)),
        "fraud_rate": wilson(len(frauds), len(mine)),
        "cost_saved": _cost_saved(mine, lambda c: c.decisions[role][1] != "approve", cost),
        "reviews": sum(c.decisions[role][1] in {"review", "costly"} for c in mine),
        "control": _control(mine, role),
        "amount_bands": _bands(mine),
    }


def _cost_saved(mine: Sequence[Case], is_handled: Any, cost: float) -> dict[str, Any]:
    frauds = [c for c in mine if c.is_fraud]
    at_risk = math.fsum(c.amount for c in frauds)
    if not at_risk:
        return {"value": None, "low": None, "high": None, "n": 0}

    def lost(case: Case) -> float:
        return cost if is_handled(case) else case.amount if case.is_fraud else 0.0

    share = math.fsum(lost(c) for c in mine) / at_risk
    influence = [(lost(c) - share * (c.amount if c.is_fraud else 0.0)) / at_risk for c in mine]
    half = Z * math.sqrt(math.fsum(x * x for x in influence))
    return {"value": 1 - share, "low": 1 - share - half, "high": 1 - share + half, "n": len(frauds)}


def _control(mine: Sequence[Case], role: str) -> dict[str, Any]:
    """Weigh each transaction of the sample by what it stands for."""

    def is_alarm(case: Case) -> bool:
        return case.decisions[role][1] in ALARMS

    def treated(case: Case) -> str:
        return {"approve": "approved", "costly": "reviewed"}.get(case.decisions[role][1], "alarmed")

    sample = [c for c in mine if c.control and c.is_fraud is not None]
    weight = {}
    for stratum in ("alarmed", "reviewed", "approved"):
        size = sum(treated(c) == stratum for c in sample)
        decided = sum(treated(c) == stratum for c in mine)
        weight[stratum] = decided / size if size else math.nan if decided else 0.0
    is_known = not any(map(math.isnan, weight.values()))  # a stratum without a sample may hold anything
    total = math.fsum(weight[treated(c)] for c in sample)
    frauds = math.fsum(weight[treated(c)] for c in sample if c.is_fraud)
    caught = math.fsum(weight["alarmed"] for c in sample if c.is_fraud and is_alarm(c))
    alarmed = [c for c in sample if is_alarm(c)]
    return {
        "fraud_rate": {"value": frauds / total if is_known else None},
        "recall": {"value": caught / frauds if is_known and frauds else None},
        "precision": wilson(sum(bool(c.is_fraud) for c in alarmed), len(alarmed)),
    }


def _bands(mine: Sequence[Case], bounds: Sequence[float] = (100.0, 250.0, 500.0)) -> list[dict[str, Any]]:
    edges = [-1.0, *bounds, math.inf]
    found = []
    for low, high in itertools.pairwise(edges):
        of = [c for c in mine if low < c.amount <= high]
        frauds = [c for c in of if c.is_fraud]
        found.append(
            {
                "decisions": len(of),
                "amount": math.fsum(c.amount for c in of),
                "frauds": len(frauds),
                "fraud_amount": math.fsum(c.amount for c in frauds),
                "fraud_rate": wilson(len(frauds), len(of)),
            }
        )
    return found


def paired(
    all_cases: Sequence[Case], releases: tuple[str, str], since_ms: int, cost: float = 1.0
) -> dict[str, Any]:
    """Return the figures of two releases on the same transactions."""
    both = [
        c
        for c in all_cases
        if len(c.decisions) == 2
        and (c.decisions["champion"][0], c.decisions["challenger"][0]) == releases
        and c.at_ms >= since_ms
    ]

    def alarms(case: Case) -> tuple[bool, bool]:
        return case.decisions["champion"][1] in ALARMS, case.decisions["challenger"][1] in ALARMS

    frauds = [c for c in both if c.is_fraud]
    labelled = [c for c in both if c.is_fraud is not None]
    pairs = Counter(
        "/".join(c.decisions[role][1].replace("costly", "review") for role in ("champion", "challenger"))
        for c in both
    )
    judged = [[c for c in labelled if alarms(c)[side]] for side in (0, 1)]
    shares = [sum(bool(c.is_fraud) for c in of) / len(of) if of else math.nan for of in judged]
    saved = [
        _cost_saved(both, lambda c, role=role: c.decisions[role][1] != "approve", cost)
        for role in ("champion", "challenger")
    ]
    return {
        "compared": len(both),
        "agreement": {key: count for key, count in pairs.items()},  # noqa: C416
        "only_champion_alarms": sum(alarms(c) == (True, False) for c in both),
        "only_challenger_alarms": sum(alarms(c) == (False, True) for c in both),
        "frauds": len(frauds),
        "only_champion_caught": sum(alarms(c) == (True, False) for c in frauds),
        "only_challenger_caught": sum(alarms(c) == (False, True) for c in frauds),
        "differences": {
            "alarm_rate": {"value": sum(b - a for a, b in map(alarms, both)) / len(both)},
            "recall": {"value": sum(b - a for a, b in map(alarms, frauds)) / len(frauds)},
            "precision": {"value": shares[1] - shares[0]},
            "cost_saved": {"value": saved[1]["value"] - saved[0]["value"]},
        },
    }


def assert_matches(shown: Any, counted: Any, path: str = "") -> None:
    """Require that everything counted is shown, equal to 1e-9."""
    if isinstance(counted, dict):
        for key, value in counted.items():
            assert_matches(shown[key], value, f"{path}.{key}")
    elif isinstance(counted, list):
        assert len(shown) == len(counted), path
        for number, (one, other) in enumerate(zip(shown, counted, strict=True)):
            assert_matches(one, other, f"{path}[{number}]")
    elif isinstance(counted, float) and shown is not None:
        assert math.isclose(shown, counted, rel_tol=1e-9, abs_tol=1e-9), (path, shown, counted)
    else:
        assert shown == counted, (path, shown, counted)
