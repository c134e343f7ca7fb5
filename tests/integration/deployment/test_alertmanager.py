"""Who hears of an alert: the routes, and one alert on its way through a real Alertmanager."""

import datetime
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e.faults import wait_until

FOLDER = ROOT / "configs" / "alertmanager"
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
needs_alertmanager = pytest.mark.skipif(
    ALERTMANAGER is None or shutil.which("amtool") is None,
    reason="needs Alertmanager (Debian package prometheus-alertmanager)",
)


@needs_alertmanager
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["severity=page", "environment=payments"], "page"),
        (["severity=ticket", "environment=payments"], "ticket"),
        (["severity=page", "environment=shadow"], "ticket"),
        (["severity=page", "environment=payments-shadow"], "ticket"),
        (["severity=none", "alertname=Watchdog"], "watchdog"),
        (["alertname=SomebodyElses"], "ticket"),
    ],
)
def test_severity_decides_who_hears_of_it(labels: list[str], receiver: str) -> None:
    file = f"--config.file={FOLDER / 'alertmanager.yml'}"
    done = subprocess.run(
        ["amtool", "config", "routes", "test", file, *labels], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == receiver


def test_inhibited_alerts_exist() -> None:
    """A rule about an alert that was renamed would hide nothing, or the wrong thing."""
    rules = yaml.safe_load((ROOT / "configs" / "prometheus" / "alerts.yml").read_text())
    known = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    config = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())
    matchers = [
        one for rule in config["inhibit_rules"] for key in rule if "matchers" in key for one in rule[key]
    ]
    named = {name for one in matchers for name in re.findall(r"\w+", one.split("=", 1)[1])}
    assert named <= known
    # Without it, one environment's fault would silence another's.
    assert all(rule["equal"] == ["environment"] for rule in config["inhibit_rules"])


@pytest.fixture
def alert_log(free_port: Callable[[], int], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the address of the receiver for trying, and the file with what it prints."""
    port, said = free_port(), tmp_path / "alerts"
    with said.open("w") as file:
        receiver = subprocess.Popen([sys.executable, FOLDER / "alert_log.py", str(port)], stdout=file)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), 20, "the receiver")
        yield f"http://127.0.0.1:{port}", said
    finally:
        receiver.kill()
        receiver.wait()


@needs_alertmanager
def test_an_alert_reaches_the_receiver(
    alert_log: tuple[str, Path], free_port: Callable[[], int], tmp_path: Path
) -> None:
    address, said = alert_log
    config = (FOLDER / "alertmanager.yml").read_text().replace("http://alert-log:9095", address)
    (tmp_path / "alertmanager.yml").write_text(config.replace("group_wait: 5s", "group_wait: 0s"))
    url = f"http://127.0.0.1:{free_port()}"
    started = subprocess.Popen(
        [
            str(ALERTMANAGER),
            f"--config.file={tmp_path / 'alertmanager.yml'}",
            f"--storage.path={tmp_path / 'state'}",
            "--cluster.listen-address=",
            f"--web.listen-address={url.removeprefix('http://')}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(f"{url}/-/ready"), 30, "Alertmanager")
        alert = {
            "labels": {"alertname": "ServiceDown", "severity": "page", "environment": "payments"},
            "annotations": {"summary": "No replica answers.", "action": "Look."},
            "startsAt": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        httpx.post(f"{url}/api/v2/alerts", json=[alert]).raise_for_status()
        line = "page firing payments ServiceDown: No replica answers. -> Look.\n"
        wait_until(lambda: said.read_text() == line, 30, "the alert")
    finally:
        started.kill()
        started.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def test_what_is_no_alert_is_refused(alert_log: tuple[str, Path]) -> None:
    address, said = alert_log
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(f"{address}/page", data=b"[]", timeout=5)
    assert said.read_text() == ""
