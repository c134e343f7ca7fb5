"""What the monitor saw of a challenger that decided the champion's transactions beside it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from training.errors import LiveComparisonError
from training.settings.sections import GateSettings

TIMEOUT_S = 10.0
WINDOW = "since_release"
COMPARED = ("recall", "cost_saved")


def read_live(source: str) -> dict[str, Any]:
    """Return the monitor's ``/quality.json`` from a file or an http address.

    Raises
    ------
    LiveComparisonError
        If it cannot be read, or is something else.
    """
    try:
        if source.startswith(("http://", "https://")):
            with urllib.request.urlopen(source, timeout=TIMEOUT_S) as answer:  # noqa: S310 - http only
                document = json.load(answer)
        else:
            document = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError, HTTPException) as error:
        raise LiveComparisonError(f"{source} (gate.live) cannot be read: {_reason(error)}") from error
    if not isinstance(document, dict) or "shadow" not in document:
        raise LiveComparisonError(f"{source} (gate.live) is not the monitor's /quality.json")
    return document


def judge_live(
    document: Mapping[str, Any], champion: str, challenger: str, settings: GateSettings
) -> tuple[list[str], list[str]]:
    """Return why the live comparison speaks against a challenger, and what that rests on.

    Parameters
    ----------
    document : mapping
        ``/quality.json`` of the monitor; differences are challenger minus champion, on the transactions that
        both decided.
    champion, challenger : str
        Numbers of the releases that are asked about; a comparison of others says nothing.
    """
    shadow = document.get("shadow")
    if document.get("state") != "ok":
        return [
            f"the monitor's figures are not usable: {document.get('sentence') or 'its state is not ok'}"
        ], []
    if not isinstance(shadow, Mapping):
        return ["the monitor has seen no challenger decide beside the champion"], []
    compared = (str(shadow.get("champion")), str(shadow.get("challenger")))
    if compared != (champion, challenger):
        return [
            f"the monitor compares release {compared[1]} with {compared[0]}, not {challenger} with {champion}"
        ], []
    try:
        return _judge_window(shadow["windows"][WINDOW], settings)
    except (KeyError, TypeError, ValueError) as error:
        return [f"the monitor's comparison lacks what the gate needs ({type(error).__name__}: {error})"], []


def _judge_window(window: Mapping[str, Any], settings: GateSettings) -> tuple[list[str], list[str]]:
    frauds, genuine = int(window["frauds"]), int(window["genuine"])
    basis = f"live, on {int(window['compared']):,} transactions with {frauds} labelled frauds"
    if frauds < settings.min_frauds:
        return [f"{basis}: too few to compare (gate.min_frauds is {settings.min_frauds})"], []
    allowed = {
        "recall": settings.max_loss_average_precision,
        "cost_saved": settings.max_loss_cost_saved,
    }
    reasons, shown = [], []
    for metric in COMPARED:
        figure = window["differences"][metric]
        value, low, high = (_number(figure[key]) for key in ("value", "low", "high"))
        words = f"{metric.replace('_', ' ')} {value:+.3f} [{low:+.3f}, {high:+.3f}]"
        shown.append(words)
        if not value >= -allowed[metric]:
            reasons.append(f"{basis}: {words}, a loss of {allowed[metric]:g} is allowed")
    return reasons, [f"{basis} and {genuine} labelled genuine: {', '.join(shown)}"]


def _number(value: object) -> float:
    if not isinstance(value, (int, float)):
        raise ValueError("a difference is not known yet")
    return float(value)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, json.JSONDecodeError):
        return "it is not JSON"
    return str(getattr(error, "strerror", None) or error)
