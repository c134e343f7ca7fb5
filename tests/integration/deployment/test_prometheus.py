"""Rules and dashboards: every expression parses and asks for metrics that service and bridge expose.

How dashboards look is in test_dashboards.py.
"""

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bentos.errors import OverloadedError, ScoringFailedError
from demo.brokers import Broker
from demo.ports import choose_port
from streaming.monitor.page.exposition import QualityCollector
from streaming.monitor.page.view import View
from streaming.observability.metrics import Metrics as BridgeMetrics
from tests.conftest import ROOT
from tests.e2e.faults import World, wait_until
from tests.unit.bentos.gateway.test_app import Gateway

PROMETHEUS = ROOT / "configs" / "prometheus"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DASHBOARDS = sorted((ROOT / "configs" / "grafana" / "dashboards").glob("*.json"))
# Grafana replaces these before Prometheus sees them.
VARIABLES = {
    "$__rate_interval": "1m",
    "$__interval": "1m",
    "$__range": "1h",
    "$environment": "local",
    "$window": "day",
}
# Prometheus's own, and what others export.
BUILT_IN = {
    "up",
    "ALERTS",
    "prometheus_notifications_dropped_total",
    "prometheus_notifications_errors_total",
    "prometheus_rule_evaluation_failures_total",
    "alertmanager_notifications_failed_total",
    "probe_ssl_earliest_cert_expiry",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    # Only where the port has a certificate, and tested there.
    "fraud_certificate_expiry_timestamp_seconds",
}
# What Prometheus adds to every series that it scrapes.
TARGET_LABELS = {"environment", "instance", "job", "fstype"}
# Of prometheus_client's own: memory and processor time are enough.
UNWATCHED = {
    f"process_{name}" for name in ("virtual_memory_bytes", "start_time_seconds", "open_fds", "max_fds")
}
TRANSACTION = {"Time": 1.0, "Amount": 9.99, **{f"V{number}": 0.1 for number in range(1, 29)}}


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for name in ("recording.yml", "alerts.yml")
        for group in yaml.safe_load((PROMETHEUS / name).read_text())["groups"]
        for rule in group["rules"]
    ]


def panels(dashboard: Path) -> list[dict[str, Any]]:
    return list(json.loads(dashboard.read_text())["panels"])


def expressions() -> dict[str, str]:
    """Return every expression by the place it stands in."""
    found = {rule.get("record") or rule["alert"]: rule["expr"] for rule in rules()}
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                found[f"{path.stem}/{panel['title']}/{target['refId']}"] = target["expr"]
    return found


def parse(expression: str) -> promql.Expr:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return promql.parse(expression)


def selectors(node: Any) -> Iterator[promql.VectorSelector]:
    """Yield every selector below `node`."""
    if isinstance(node, promql.VectorSelector):
        yield node
    elif isinstance(node, promql.MatrixSelector):
        yield node.vector_selector
    else:
        for name in ("lhs", "rhs", "expr", "param"):
            if (child := getattr(node, name, None)) is not None:
                yield from selectors(child)
        for argument in getattr(node, "args", None) or ():
            yield from selectors(argument)


def exposed(text: str) -> dict[str, set[str]]:
    """Return the labels of every sample name in Prometheus's text format."""
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


@pytest.fixture(scope="module")
def service_text(served_bento: str) -> str:
    """Return what the served bento exposes once it has decided and refused."""
    with httpx.Client(base_url=served_bento, timeout=10) as client:
        assert client.post("/classify", json=[TRANSACTION] * 3).status_code == httpx.codes.OK
        assert client.post("/classify", json=[]).status_code == httpx.codes.BAD_REQUEST
        assert client.post("/classify", json=[TRANSACTION] * 10_001).status_code == 413
        return client.get("/metrics").text


@pytest.fixture(scope="module")
def service_metrics(service_text: str) -> dict[str, set[str]]:
    return exposed(service_text)


@pytest.fixture(scope="module")
def bridge_text(session_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what a bridge exposes that has decided, rejected, repeated and given up."""
    with World(session_broker.address, tmp_path_factory.mktemp("bridge")) as world:
        port = choose_port(9464)
        world.start_bridge("metrics", METRICS__PORT=port)
        with world.feed(400, bad_share=0.2):
            world.wait_progress(200, 60)
            world.script("status", 503)
            wait_until(
                lambda: counts(read_metrics(port), "bridge_retries_total", reason="503") > 0, 30, "503"
            )
            world.script("ok")
            world.wait_progress(200, 60)
        return read_metrics(port) + skipped()


def skipped() -> str:
    """Return the count of records that were gone, as a bridge exposes it that met a gap."""
    metrics = BridgeMetrics()
    metrics.count_skipped(3, "retention", 746)
    lines = generate_latest(metrics.registry).decode().splitlines(keepends=True)
    return "".join(line for line in lines if "bridge_records_skipped" in line)


def read_metrics(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text


def counts(text: str, name: str, **labels: str) -> float:
    """Return the sum of the samples that carry `labels`."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.fixture(scope="module")
def bridge_metrics(bridge_text: str) -> dict[str, set[str]]:
    return exposed(bridge_text)


class KnownView:
    """A monitor's view of a document with every figure that there is, in the form of /quality.json."""

    monitor = SimpleNamespace(last_commit=1.0)

    def document(self) -> dict[str, Any]:
        figure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
        named = ("alarm_rate", "review_load", "recall", "precision", "fraud_rate", "cost_saved")
        window = dict.fromkeys(named, figure) | {
            **{"decisions": 9, "alarms": 2, "reviews": 1, "declines": 1},
            "labels": {"by_origin": {"control": {"frauds": 1, "genuine": 2}}},
            "control": dict.fromkeys(("recall", "precision", "fraud_rate"), figure),
            "label_delay_s": {"median": figure, "p90": figure},
        }
        releases = [
            {"role": role, "release": "12", "is_current": True}
            | {"windows": {"day": window}, "expected": {"recall": 0.8, "alarm_rate": 0.002}}
            for role in ("champion", "challenger")
        ]
        drift = {"role": "champion", "release": "12", "series": "V14", "divergence": 0.1, "threshold": 0.2}
        kinds = dict.fromkeys(("recall", "precision", "alarm_rate", "drift"), 1)
        streams = {"transactions": 0, "decisions": 0, "labels": 1, "shadow": 0}
        shadow = {
            **{"compared": 9, "agreement": {"approve/review": 1}},
            "differences": dict.fromkeys(("alarm_rate", "recall", "precision", "cost_saved"), figure),
        }
        return {
            **{"state": "ok", "as_of_ms": 1, "lag_records": streams, "releases": releases},
            "drift": [drift | {"is_drifted": False}],
            "alarms": [{"kind": "recall", "until_ms": None}],
            "retraining": {"advised": True},
            "shadow": {"windows": {"since_release": shadow}},
            "counts": {
                "records": {topic: {"used": 1} for topic in streams},
                **{"missed": {"labels": 1}, "made_again": {"labels": 1}, "state_bytes": 1, "alarms": kinds},
                **{"labels_waiting": 1, "labels_expired": 1, "disk_bytes": 2, "disk_free_bytes": 1},
            },
        }


@pytest.fixture(scope="module")
def monitor_text() -> str:
    """Return what a monitor exposes that knows everything."""
    registry = CollectorRegistry()
    registry.register(QualityCollector(cast("View", KnownView())))
    return generate_latest(registry).decode()


def test_every_outcome_of_the_monitors_records_begins_at_zero(monitor_text: str) -> None:
    """Of a burst before the first scrape `increase` would otherwise see nothing."""
    samples = [one for family in text_string_to_metric_families(monitor_text) for one in family.samples]
    records = [one for one in samples if one.name == "monitor_records_total"]
    found = {(one.labels["topic"], one.labels["outcome"]): one.value for one in records}
    for stream in ("transactions", "decisions", "labels", "shadow"):
        assert (found[stream, "used"], found[stream, "unreadable"]) == (1, 0)
    assert found["labels", "superseded"] == found["decisions", "foreign"] == 0


@pytest.fixture(scope="module")
def monitor_metrics(monitor_text: str) -> dict[str, set[str]]:
    return exposed(monitor_text)


def produced(*texts: str) -> dict[tuple[str, str], set[str]]:
    """Return the values of each label that have been counted at least once, by metric and label."""
    found: dict[tuple[str, str], set[str]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                for label, value in sample.labels.items():
                    if sample.value or family.type == "gauge":
                        found.setdefault((sample.name, label), set()).add(value)
    return found


async def refuse() -> str:
    """Return what the real application exposes after a missing key, overload and two kinds of defect."""
    gateway = Gateway(security={"api_keys": ["key"]})
    key = {"content-type": "application/json", "x-api-key": "key"}
    await gateway.ask()
    for error in (OverloadedError("full"), ScoringFailedError("a defect"), ZeroDivisionError()):
        gateway.handler.error = error
        with contextlib.suppress(ZeroDivisionError):
            await gateway.ask(headers=key)
    gateway.backend.metrics.flush()
    return generate_latest(gateway.registry).decode()


def merged(*exposing: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the labels of each metric, whoever exposes it."""
    names = {name for one in exposing for name in one}
    return {name: set().union(*(one.get(name, set()) for one in exposing)) for name in names}


def recorded() -> dict[str, set[str]]:
    """Return the labels of every recording rule."""
    names = {}
    for rule in rules():
        if "record" in rule:
            by = re.match(r"\s*(?:sum|max|min) by \(([^)]*)\)", rule["expr"])
            names[rule["record"]] = {label.strip() for label in by[1].split(",")} if by else set()
    return names


@pytest.mark.parametrize("place", expressions())
def test_expression_parses(place: str) -> None:
    assert list(selectors(parse(expressions()[place]))) or place == "Watchdog"


def test_metrics_are_exposed(
    service_metrics: dict[str, set[str]],
    bridge_metrics: dict[str, set[str]],
    monitor_metrics: dict[str, set[str]],
) -> None:
    known = merged(service_metrics, bridge_metrics, monitor_metrics, recorded())
    faults = []
    for place, expression in expressions().items():
        for selector in selectors(parse(expression)):
            if selector.name in BUILT_IN:
                continue
            if selector.name not in known:
                faults.append(f"{place}: {selector.name} is not exposed")
                continue
            asked = {matcher.name for matcher in selector.matchers.matchers}
            unknown = asked - known[selector.name] - TARGET_LABELS
            faults += [f"{place}: {selector.name} has no label {label}" for label in unknown]
    assert not faults, "\n".join(faults)


def test_labels_named_exist(
    service_metrics: dict[str, set[str]],
    bridge_metrics: dict[str, set[str]],
    monitor_metrics: dict[str, set[str]],
) -> None:
    known = merged(service_metrics, bridge_metrics, monitor_metrics, recorded())
    faults = []
    for place, expression in expressions().items():
        labels = TARGET_LABELS | {"alertname", "rule_group"}
        for selector in selectors(parse(expression)):
            labels |= known.get(selector.name or "", set())
        for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            wanted = {label.strip() for label in names.split(",") if label.strip()}
            faults += [f"{place}: no series has the label {label}" for label in wanted - labels]
    assert not faults, "\n".join(faults)


def values_asked_for() -> list[tuple[str, str, str, str]]:
    """Return place, metric, label and value of every matcher that names values."""
    return [
        (place, selector.name or "", matcher.name, value)
        for place, expression in expressions().items()
        for selector in selectors(parse(expression))
        for matcher in selector.matchers.matchers
        if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.Re)
        for value in matcher.value.split("|")
        if (selector.name, matcher.name) != ("ALERTS", "alertstate") and matcher.name != "environment"
    ]


def test_values_asked_for_are_produced(service_text: str, bridge_text: str, monitor_text: str) -> None:
    """An alert on a value that nothing ever counts stays silent for ever."""
    known = produced(service_text, bridge_text, monitor_text, asyncio.run(refuse()))
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    known |= {
        (name, "job"): {"monitor", *(job["job_name"] for job in jobs)}
        for name in {"up", *(one for one, _ in known)}
    }
    # Kinds of decision are a closed set, and no test data is sure to hold each of them.
    known["fraud_decisions_total", "decision"] = {"approve", "review", "decline"}
    known["fraud:requests:rate5m", "status"] = known["fraud_requests_total", "status"]
    # Only a broker that fails makes a bridge give a transaction up; the long fault tests make it do so.
    known["bridge_transactions_total", "outcome"] |= {"aborted"}
    # Only a release that does not load is refused; the tests of the swap offer one.
    known["fraud_release_swaps_total", "outcome"] = {"swapped", "refused"}
    faults = [
        f"{place}: {metric} never has {label}={value}"
        for place, metric, label, value in values_asked_for()
        if value not in known.get((metric, label), set())
    ]
    assert not faults, "\n".join(faults)
    assert {("fraud_refused_total", "reason", "unauthorized"), ("up", "job", "bridge")} <= {
        asked[1:] for asked in values_asked_for()
    }


def test_a_wrong_name_would_be_found(service_metrics: dict[str, set[str]]) -> None:
    names = [selector.name for selector in selectors(parse("sum(rate(fraud_requests[1m])) / avg(nonsense)"))]
    assert names == ["fraud_requests", "nonsense"]
    assert not set(names) & set(service_metrics)


def test_metrics_nobody_looks_at(
    service_metrics: dict[str, set[str]],
    bridge_metrics: dict[str, set[str]],
    monitor_metrics: dict[str, set[str]],
) -> None:
    """What is measured is shown: a metric on no dashboard and in no rule is a cost without use."""
    used = {s.name or "" for expression in expressions().values() for s in selectors(parse(expression))}
    families = {
        re.sub(r"_(bucket|sum|count|total|created)$", "", name)
        for name in {*service_metrics, *bridge_metrics, *monitor_metrics}
        if name.startswith(("fraud_", "bridge_", "process_", "monitor_"))
    }
    looked_at = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in used}
    # How many requests came together tells little beside the rows; kept for benchmarks.
    assert families - looked_at <= {"fraud_batch_requests", *UNWATCHED}


def test_every_alert_says_what_to_do_and_is_tested() -> None:
    for rule in rules():
        if "alert" in rule:
            assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
            assert rule["labels"]["severity"] in {"page", "ticket"} or rule["alert"] == "Watchdog"
    assert {rule["alert"] for rule in rules() if "alert" in rule} == alerts_seen_firing()


@pytest.mark.parametrize("alert", sorted(rule["alert"] for rule in rules() if "alert" in rule))
def test_every_alert_has_a_paragraph(alert: str) -> None:
    """Whoever is woken reads what it means, what to look at and what to do, under the alert's name."""
    found = re.search(rf"^### {alert}\n\n(.*?)(?=^##)", OPERATIONS, flags=re.MULTILINE | re.DOTALL)
    assert found, f"docs/operations.md has no paragraph {alert}"
    assert "**Do**" in found[1]
    severity = next(rule["labels"]["severity"] for rule in rules() if rule.get("alert") == alert)
    assert found[1].startswith({"page": "*Page.*", "ticket": "*Ticket.*", "none": "Always"}[severity])


def test_no_paragraph_is_about_an_alert_that_is_gone() -> None:
    section = OPERATIONS.split("\n## Alerts\n")[1].split("\n## ")[0]
    named = re.findall(r"^### (\w+)$", section, flags=re.MULTILINE)
    assert sorted(named) == sorted(rule["alert"] for rule in rules() if "alert" in rule)


def test_rules_keep_environments_apart() -> None:
    """Of two deployments in one Prometheus nothing may add up."""
    for rule in rules():
        for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"]):
            assert "environment" in by, rule.get("alert") or rule["record"]
        assert not re.search(r"\b(sum|max|min|count) ?\(", rule["expr"]), rule.get("alert") or rule["record"]


def alerts_seen_firing() -> set[str]:
    """Return the alerts that alerts_test.yml expects to fire: that one stays silent proves little."""
    seen = set()
    for test in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]:
        seen |= {one["alertname"] for one in test.get("alert_rule_test", ()) if one["exp_alerts"]}
        for expectation in test.get("promql_expr_test", ()):
            for sample in expectation["exp_samples"]:
                seen |= set(re.findall(r'alertname="(\w+)"', sample["labels"])) if sample["value"] else set()
    return seen


@pytest.mark.timeout(900)  # days of rules: 40 s of a processor, four times that beside other work
@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian package prometheus)")
@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
