"""The model card of a release, as Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from training.evaluation.metrics import Estimate
from training.settings.load import Settings

SHOWN = {
    "auc": "AUC-ROC",
    "average_precision": "average precision",
    "precision": "precision, decided",
    "recall": "recall, decided",
    "f1": "F1, decided",
    "alarm_rate": "alarm rate",
    "handled_rate": "reviewed or declined",
    "cost_saved": "amount saved",
    "calibration_error": "calibration error",
    "brier": "Brier score",
}
# Of a thousand transactions few are fraud: these are too small to be read as shares.
PER_MILLE = frozenset({"alarm_rate", "handled_rate", "calibration_error", "brier"})
DESCRIBED = {
    "average_precision": "AP",
    "recall": "recall",
    "precision": "precision",
    "cost_saved": "amount saved",
}
LATENCY_COLUMNS = ["model, alone on one core", "1 row, p50 / p99", "1000 rows, p50 / p99"]
MODELS = {"neural_net": "network", "xgboost": "XGBoost", "pair": "both"}


def model_card(
    document: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, Estimate]],
    settings: Settings,
    parts: Mapping[str, Mapping[str, Any]],
    latency: Mapping[str, Mapping[str, float]],
) -> str:
    """Return the card: what the release is, its data, how good and how sure, its limits."""
    sections = (
        _head(document, settings),
        _data(document["data"], parts),
        _figures(figures, settings),
        _decision(document, settings),
        ["## Speed", "", *_table(LATENCY_COLUMNS, _latency_rows(latency))],
        ["## Limits", "", *_limits(document["data"], parts)],
        _again(document["data"], settings),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _head(document: Mapping[str, Any], settings: Settings) -> list[str]:
    layers, members = "-".join(map(str, settings.network.hidden)), settings.network.members
    networks = (
        f"a network ({layers}) raises" if members == 1 else f"{members} averaged networks ({layers}) raise"
    )
    lines = [
        f"# Fraud detector trained on {document['data']['name']}",
        "",
        f"Trained {document['trained_at'][:19].replace('T', ' ')} UTC, run `{document['training_run_id']}`.",
        f"Two models, one decision: {networks} the alarm first,",
        "gradient-boosted trees confirm it. Raw features in, no preprocessing outside.",
    ]
    if settings.refit:
        lines += [
            "Calibration and thresholds were found with models of the training part; then both models were",
            "fitted again on training and validation rows together. These are judged here"
            + ("." if settings.refit_newest else ", and stored."),
        ]
    if settings.refit_newest:
        lines += [
            "What is stored was fitted once more, on the test rows too: it knows the newest, and no figure",
            "here is of exactly these models.",
        ]
    return lines


def _data(data: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            name,
            f"{part['rows']:,}",
            f"{part['transactions']:,.0f}",
            f"{part['frauds']:,}",
            f"{part['prevalence']:.4%}",
        ]
        for name, part in parts.items()
    ]
    stands_for = sum(part["transactions"] for part in parts.values())
    return [
        "## Data",
        "",
        f"{data['rows']:,} rows, {data['frauds']:,} of them frauds, that stand for {stands_for:,.0f}",
        f"transactions of a stream with {data['prevalence']:.4%} fraud; all figures hold for that stream.",
        f"Split: {data['protocol']}. Fingerprint `{data['fingerprint']}`.",
        "",
        *_table(["part", "rows", "stand for", "frauds", "share of fraud"], rows),
    ]


def _figures(figures: Mapping[str, Mapping[str, Estimate]], settings: Settings) -> list[str]:
    wanted = settings.evaluation
    return [
        "## Figures",
        "",
        f"Test part, at the stream's prevalence, with {wanted.confidence:.0%} stratified-bootstrap intervals",
        f"({wanted.resamples} resamples). Nothing was chosen on these rows. *Decided* is at the thresholds",
        "below, *amount saved* the share of the fraud amount less the cost of alarms, ‰ per thousand.",
        "",
        *_table(["figure", *MODELS.values()], _figure_rows(figures)),
    ]


def _decision(document: Mapping[str, Any], settings: Settings) -> list[str]:
    limits, costs = document["thresholds"], settings.decision
    return [
        "## Decision",
        "",
        f"The network is alarmed from score {limits['neural_net']:.6g}, XGBoost from",
        f"{limits['xgboost']:.6g}: none approves, one reviews, both decline. Chosen on validation rows for",
        "recall first at bounded cost: a missed fraud costs its amount, an alarm",
        f"{costs.review_cost:g}; at least {costs.min_precision:.0%} of the alarms are to be frauds, and",
        f"at most {costs.cost_slack:.0%} of the amount at risk may be spent beyond the cheapest such pair.",
        f"Neither lies where its model, heard alone, means less than {costs.min_probability:.0%} fraud.",
        "",
        _expected_loss(document, settings),
        "",
        f"Log-odds of the fraud probability: {_calibration(document['calibration'])}.",
    ]


def _expected_loss(document: Mapping[str, Any], settings: Settings) -> str:
    loss = document["expected_loss"]
    if loss is None:
        return "Nothing is reviewed for its expected loss alone."
    return (
        f"Reviewed as well: what is expected to lose at least {loss['bound']:g} (fraud probability times\n"
        f"amount), {loss['lambda']:g} times the cost of a review: of those that review or decline at\n"
        f"most {settings.decision.review_capacity:.2%} of the stream, what is expected to save most."
    )


def _again(data: Mapping[str, Any], settings: Settings) -> list[str]:
    flags = f"--protocol {settings.protocol} --seed {settings.seed}"
    if settings.genuine_weight != 1.0:
        flags = f"--genuine-weight {settings.genuine_weight:g} {flags}"
    if settings.data is not None:
        flags = f"--data {shlex.quote(data['name'])} {flags}"
    lines = [
        "## To repeat it",
        "",
        f"`TRAINING__CONFIG=settings.json python -m training train {flags}`",
        "",
        "with `settings.json` from beside this card: same data, settings and seed give the same figures on",
        "the same kind of machine.",
    ]
    if settings.data is None:
        lines.append(f"No file was named: the command found {data['name']} by itself.")
    return lines


def _figure_rows(figures: Mapping[str, Mapping[str, Estimate]]) -> list[list[str]]:
    rows = []
    for metric in figures["pair"]:
        cells = (figure_text(metric, figures[model][metric]) for model in MODELS)
        rows.append([metric_name(metric), *cells])
    return rows


def figure_text(metric: str, figure: Estimate) -> str:
    """Return a value with its interval, in the unit that `metric_name` states."""
    factor = 1000 if metric in PER_MILLE else 1
    digits = 3 if figure.value * factor < 10 else 2
    value, low, high = (f"{number * factor:.{digits}f}" for number in (figure.value, figure.low, figure.high))
    return f"{value} ({low}-{high})"


def describe_version(figures: Mapping[str, Estimate], about: str) -> str:
    """Return what the registry's list shows beside a version, of which it cuts all but the beginning."""
    shown = (f"{name} {figure_text(metric, figures[metric])}" for metric, name in DESCRIBED.items())
    return f"{', '.join(shown)}: {about}"


def metric_name(metric: str) -> str:
    """Return how a metric is called in tables."""
    if metric.startswith("recall_at_alarm_rate_"):
        return f"recall at 1 alarm in {1 / float(metric.rsplit('_', 1)[1]):,.0f}"
    return SHOWN.get(metric, metric.replace("_", " ")) + (" ‰" if metric in PER_MILLE else "")


def _calibration(calibration: Mapping[str, Any]) -> str:
    parts = [f"{value:.3f} x {MODELS[model]}" for model, value in calibration["coefficients"].items()]
    return f"{calibration['intercept']:.3f} + " + " + ".join(parts)


def _latency_rows(latency: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    return [
        [
            MODELS[model],
            *(
                f"{times[f'latency_ms_p50_rows_{rows}']:.3f} / {times[f'latency_ms_p99_rows_{rows}']:.3f} ms"
                for rows in (1, 1000)
            ),
        ]
        for model, times in latency.items()
    ]


def _limits(data: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        f"- {parts['test']['frauds']} frauds in the test part: an interval is as wide as that makes it.",
        "- Features V1..V28 are principal components of one issuer's data; the models know no other.",
        "- Frauds that nobody noticed are labelled genuine; the figures cannot know them.",
    ]
    if data["protocol"] == "random":
        lines.append("- A random split knows the future: the temporal protocol is the stricter one.")
    if "simulat" in data["name"].lower():
        lines.append("- The data are simulated: the figures say nothing about real cards.")
    return lines


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
