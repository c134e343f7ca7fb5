"""The figures of ``/quality.json`` as Prometheus metrics."""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streaming.monitor.page.view import View

FIGURES = ("alarm_rate", "review_load", "recall", "precision", "fraud_rate", "cost_saved")
CONTROL = ("recall", "precision", "fraud_rate")
BOUNDS = ("value", "low", "high")
WHO = ("role", "release", "window")
# What can become of a record, by stream. Counts begin at 0: `rate` does not see the first value of a series.
DECIDED = ("used", "duplicate", "foreign", "unreadable")
OUTCOMES = {
    "transactions": ("used", "unreadable"),
    "decisions": DECIDED,
    "shadow": DECIDED,
    "labels": ("used", "duplicate", "superseded", "unreadable"),
}


class QualityCollector(Collector):
    """Reads the view at each scrape.

    Parameters
    ----------
    view : View
    """

    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterable[Metric]:
        """Return all metrics; what is not known yet is absent."""
        document = self._view.document()
        yield _gauge("up_to_date", "Whether the figures are up to date", [((), document["state"] == "ok")])
        monitor = self._view.monitor
        if monitor is not None:
            yield _gauge("last_commit_timestamp_seconds", "Last batch taken in", [((), monitor.last_commit)])
        if "releases" not in document:
            return
        yield from _progress(document)
        yield from _quality(document["releases"])
        yield from _warnings(document)
        yield from _shadow(document["shadow"])


def _gauge(
    name: str,
    text: str,
    samples: Iterable[tuple[tuple[str, ...], float | None]],
    labels: tuple[str, ...] = (),
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"monitor_{name}", text, labels=labels)
    for values, number in samples:
        if number is not None:
            family.add_metric(values, float(number))
    return family


def _counter(
    name: str, text: str, samples: Iterable[tuple[tuple[str, ...], float]], labels: tuple[str, ...] = ()
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"monitor_{name}", text, labels=labels)
    for values, number in samples:
        family.add_metric(values, float(number))
    return family


def _progress(document: dict[str, Any]) -> Iterator[Metric]:
    counts = document["counts"]
    streams = document["lag_records"]
    records = {(stream, outcome): 0 for stream in streams for outcome in OUTCOMES.get(stream, ())}
    for stream, outcomes in counts["records"].items():
        records |= {(stream, outcome): count for outcome, count in outcomes.items()}
    yield _counter("records", "Records read", records.items(), ("topic", "outcome"))
    for name, text, key in (
        ("missed_records", "Records that retention deleted before they were read", "missed"),
        ("topics_made_again", "Topics deleted and created again", "made_again"),
    ):
        found = [((topic,), counts[key].get(topic, 0)) for topic in streams]
        yield _counter(name, text, found, ("topic",))
    lags = [((topic,), count) for topic, count in streams.items()]
    yield _gauge("lag_records", "Records not read yet", lags, ("topic",))
    as_of = document["as_of_ms"]
    newest = [((), as_of / 1000 if as_of else None)]
    yield _gauge("stream_timestamp_seconds", "Newest transaction seen", newest)
    yield _gauge("state_bytes", "Size of the database", [((), counts["state_bytes"])])
    yield _gauge("disk_bytes", "Size of the volume with the database", [((), counts["disk_bytes"])])
    yield _gauge("disk_free_bytes", "Free bytes of that volume", [((), counts["disk_free_bytes"])])
    waiting = [((), counts["labels_waiting"])]
    yield _gauge("labels_waiting", "Labels whose transaction was not seen yet", waiting)
    expired = [((), counts["labels_expired"])]
    yield _counter("labels_expired", "Labels given up after the label delay", expired)


def _quality(releases: list[dict[str, Any]]) -> Iterator[Metric]:
    current = [one for one in releases if one["is_current"]]
    windows = [
        ((one["role"], one["release"], name), window)
        for one in current
        for name, window in one["windows"].items()
    ]
    figures = (
        ((*who, name, bound), figure[bound])
        for who, window in windows
        for name, figure in _figures(window)
        for bound in BOUNDS
    )
    yield _gauge("figure", "Live quality", figures, (*WHO, "figure", "bound"))
    yield from _basis(windows)
    expected = (
        ((one["role"], one["release"], name), value)
        for one in current
        for name, value in one["expected"].items()
    )
    yield _gauge("expected", "What the release promised", expected, ("role", "release", "figure"))


def _basis(windows: list[tuple[tuple[str, str, str], dict[str, Any]]]) -> Iterator[Metric]:
    labels = (
        ((*who, origin, is_fraud), found[kind])
        for who, window in windows
        for origin, found in window["labels"]["by_origin"].items()
        for kind, is_fraud in (("frauds", "true"), ("genuine", "false"))
    )
    text = "Labels that the figures rest on"
    yield _gauge("figure_labels", text, labels, (*WHO, "origin", "is_fraud"))
    decisions = (
        ((*who, decision), count)
        for who, window in windows
        for decision, count in (
            ("approve", window["decisions"] - window["reviews"] - window["declines"]),
            ("review", window["reviews"]),
            ("decline", window["declines"]),
        )
    )
    yield _gauge("decisions", "Decisions in the window", decisions, (*WHO, "decision"))
    delays = (
        ((*who, quantile), window["label_delay_s"][name]["value"])
        for who, window in windows
        for name, quantile in (("median", "0.5"), ("p90", "0.9"))
    )
    yield _gauge("label_delay_seconds", "From transaction to label", delays, (*WHO, "quantile"))


def _figures(window: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((name, window[name]) for name in FIGURES)
    yield from ((f"control_{name}", window["control"][name]) for name in CONTROL)


def _warnings(document: dict[str, Any]) -> Iterator[Metric]:
    labels = ("role", "release", "series")
    for name, text, key in (
        ("drift_divergence", "Population stability index against training", "divergence"),
        ("drift_threshold", "What is explained without drift", "threshold"),
        ("drifted", "Whether the one exceeds the other", "is_drifted"),
    ):
        found = (((one["role"], one["release"], one["series"]), one[key]) for one in document["drift"])
        yield _gauge(name, text, found, labels)
    raised = document["counts"]["alarms"]
    active = dict.fromkeys(raised, 0)
    for one in document["alarms"]:
        active[one["kind"]] += one["until_ms"] is None
    yield _gauge("alarm_active", "Alarms that hold", (((k,), n) for k, n in active.items()), ("kind",))
    yield _counter("alarms", "Alarms raised", (((k,), n) for k, n in raised.items()), ("kind",))
    advised = [((), document["retraining"]["advised"])]
    yield _gauge("retraining_advised", "Whether a retraining is advised", advised)


def _shadow(shadow: dict[str, Any] | None) -> Iterator[Metric]:
    if shadow is None:
        return
    window = shadow["windows"]["since_release"]
    yield _gauge("shadow_compared", "Transactions that both have decided", [((), window["compared"])])
    agreement = ((tuple(pair.split("/")), count) for pair, count in window["agreement"].items())
    yield _gauge("shadow_agreement", "Decisions of both", agreement, ("champion", "challenger"))
    differences = (
        ((name, bound), figure[bound]) for name, figure in window["differences"].items() for bound in BOUNDS
    )
    text = "Challenger minus champion, on the same transactions"
    yield _gauge("shadow_difference", text, differences, ("figure", "bound"))
