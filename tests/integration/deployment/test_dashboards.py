"""What a person sees on the dashboards: the present, its bounds, what is missing, legible axes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streaming.observability.metrics import Metrics as BridgeMetrics
from tests.conftest import ROOT
from tests.integration.deployment.test_prometheus import DASHBOARDS, expressions, panels, parse, selectors


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboard_is_sane(dashboard: Path) -> None:
    document = json.loads(dashboard.read_text())
    assert {"uid", "title", "panels", "schemaVersion", "time"} <= document.keys()
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} overlaps another panel"
        taken |= cells
        assert panel["datasource"]["uid"] == "prometheus"
        assert panel["targets"], panel["title"]


def test_dashboards_have_distinct_ids_and_a_data_source() -> None:
    uids = [json.loads(path.read_text())["uid"] for path in DASHBOARDS]
    assert len(uids) == len(set(uids)) == 4
    provisioning = ROOT / "configs" / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert (source["uid"], source["url"]) == ("prometheus", "http://prometheus:9090")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_stats_show_the_present_and_colour_it_by_bounds_with_a_meaning(dashboard: Path) -> None:
    """Grafana's defaults: red from 80 up, a value as old as the range, an empty panel for what is missing."""
    for panel in panels(dashboard):
        if panel["type"] != "stat":
            continue
        defaults, title = panel["fieldConfig"]["defaults"], panel["title"]
        assert panel["description"], title
        assert defaults["unit"] not in ("short", "cps"), f"{title}: 1,460 would be 1 K"
        assert all(target["instant"] and not target["range"] for target in panel["targets"]), title
        assert defaults["thresholds"]["steps"][0]["color"] in ("text", "green", "orange", "red"), title
        assert all(step["value"] != 80 for step in defaults["thresholds"]["steps"]), title
        missing = [one["options"] for one in defaults["mappings"] if one["type"] == "special"]
        assert {one["match"]: one["result"]["color"] for one in missing}["null"] == "red", title
        # A figure of the last hour is there for an hour after its source has gone.
        for target in panel["targets"]:
            outlives = re.search(r"1h\b", target["expr"])
            assert not outlives or "up{" in target["expr"] or "bridge_lag_records" in target["expr"], title


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_stats_of_several_values_name_each(dashboard: Path) -> None:
    """Grafana leaves the name out where one value is left: what was promised would read as what is."""
    for panel in panels(dashboard):
        if panel["type"] == "stat":
            several = len(panel["targets"]) > 1 or "{{" in panel["targets"][0]["legendFormat"]
            assert not several or panel["options"]["textMode"] == "value_and_name", panel["title"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_what_is_no_number_is_not_drawn(dashboard: Path) -> None:
    """A quantile of nothing is NaN, which Grafana draws as a wedge down to the axis."""
    for panel in panels(dashboard):
        for target in panel["targets"] if panel["type"] == "timeseries" else []:
            if target["expr"].startswith("histogram_quantile"):
                assert ">= 0" in target["expr"], panel["title"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_asks_for_one_environment_and_says_when_it_is_empty(dashboard: Path) -> None:
    for panel in panels(dashboard):
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        for target in panel["targets"]:
            for selector in selectors(parse(target["expr"])):
                matchers = {matcher.name for matcher in selector.matchers.matchers}
                assert "environment" in matchers, f"{panel['title']}: {selector.name}"


@pytest.mark.parametrize(
    ("dashboard", "shown"),
    [
        (
            "service",
            {
                "fraud_transactions_total",
                "fraud_request_seconds_bucket",
                "fraud_decisions_total",
                "fraud:score:drift1d",
            },
        ),
        (
            "bridge",
            {
                "bridge_lag_records",
                "bridge_dead_letters_total",
                "bridge_produced_to_decided_seconds_bucket",
                "bridge_retries_total",
            },
        ),
        ("model", {"fraud:alarms:share1h", "fraud_probability_bucket"}),
        ("service", {"process_resident_memory_bytes", "process_cpu_seconds_total"}),
        ("bridge", {"process_resident_memory_bytes", "process_cpu_seconds_total"}),
        ("quality", {"monitor_figure", "monitor_drift_divergence", "monitor_shadow_difference"}),
    ],
)
def test_dashboards_show_what_was_promised(dashboard: str, shown: set[str]) -> None:
    asked = {
        selector.name or ""
        for place, expression in expressions().items()
        if place.startswith(f"{dashboard}/")
        for selector in selectors(parse(expression))
    }
    assert shown <= asked


def graphs(dashboard: Path) -> list[dict[str, Any]]:
    return [panel for panel in panels(dashboard) if panel["type"] == "timeseries"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_share_of_nothing_has_a_short_axis(dashboard: Path) -> None:
    """Grafana draws a graph of zeros up to 100, and 100 of a share is 10,000 %."""
    for panel in graphs(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        if defaults["unit"] == "percentunit":
            top = defaults.get("max", defaults["custom"].get("axisSoftMax"))
            assert top is not None and top <= 1, panel["title"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_bars_of_a_thousandth_are_seen(dashboard: Path) -> None:
    """On a linear scale of colours the fullest bucket hides all others."""
    for panel in panels(dashboard):
        if panel["type"] == "heatmap":
            color = panel["options"]["color"]
            assert (color["scale"], color["exponent"]) == ("exponential", 0.2), panel["title"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_legends_name_no_reason_that_did_not_occur(dashboard: Path) -> None:
    """Reasons are counted from zero, a dozen and more of them: without traffic each would be a line."""
    for panel in graphs(dashboard):
        for target in panel["targets"]:
            if re.search(r"{{(reason|status|origin)}}", target["legendFormat"]):
                assert target["expr"].endswith("> 0"), panel["title"]


def test_how_late_decisions_are_is_seen_after_hours_too() -> None:
    (family,) = [
        one for one in BridgeMetrics().registry.collect() if one.name == "bridge_produced_to_decided_seconds"
    ]
    assert (
        max(float(one.labels["le"]) for one in family.samples if one.labels.get("le", "+Inf") != "+Inf")
        > 3600
    )


@pytest.mark.parametrize("title", ["Behind", "Lag by partition"])
def test_no_lag_is_shown_that_is_as_old_as_the_brokers_silence(title: str) -> None:
    """A bridge whose brokers are gone keeps the last lag it knew: a green 0 while transactions wait."""
    (bridge,) = [path for path in DASHBOARDS if path.stem == "bridge"]
    (panel,) = [one for one in panels(bridge) if one["title"] == title]
    for target in panel["targets"]:
        lag = r"bridge_lag_records\{[^}]*\} and on \(instance\) bridge_broker_silence_seconds\{[^}]*\} < \d+"
        assert len(re.findall(lag, target["expr"])) == target["expr"].count("bridge_lag_records") == 1
