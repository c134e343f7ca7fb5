"""The monitor's page in a real browser: its console, its figures, its states, on a desk and on a phone."""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from streaming.monitor.drift.watch import DriftWatch
from streaming.monitor.intake import Intake
from streaming.monitor.page.server import serve_page
from streaming.monitor.page.view import View
from streaming.monitor.promises import read_promise
from streaming.monitor.quality.report import Reporter
from streaming.monitor.store.state import State
from streaming.settings.drift import DriftSettings
from streaming.settings.monitor import MonitorSettings
from tests.info_service import document as release_document
from tests.monitored_stream import tell

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TOPICS = {"transactions": "in", "decisions": "out", "shadow": "out.shadow", "labels": "labels"}
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--hide-scrollbars"),
)
pytestmark = [
    pytest.mark.timeout(170),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]


class Dom(HTMLParser):
    """The rendered page: every element's attributes with the text inside it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[dict[str, str | None]] = []
        self._open: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.elements.append(element)
        if tag not in {"meta", "link", "br", "img"}:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()["tag"] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element["text"] = (element["text"] or "") + data

    def having(self, **wanted: str) -> list[dict[str, str | None]]:
        """Return elements by their attributes (``data_x`` for ``data-x``)."""
        names = {name.replace("_", "-"): value for name, value in wanted.items()}
        return [one for one in self.elements if all(one.get(key) == value for key, value in names.items())]

    def state(self) -> str | None:
        return self.having(id="state")[0]["data-state"]


def browse(url: str, folder: Path, *, width: int = 1100, wait_ms: int = 4000) -> tuple[Dom, list[str]]:
    """Open a page; return what it became, and what its console said."""
    done = subprocess.run(
        [
            *(str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}/{time.monotonic_ns()}"),
            *(f"--window-size={width},2000", f"--virtual-time-budget={wait_ms}", "--dump-dom", url),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return Dom(done.stdout), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """Yield a served view of a counted stream: the state, its reporter, the view and its address."""
    settings = MonitorSettings(state=tmp_path / "state")
    state = State(settings)
    now_ms = int(time.time() * 1000)
    for role, release in enumerate(("12", "13")):
        state.note_document(role, release, json.dumps(release_document(release)))
    drift = DriftWatch(DriftSettings(), {})
    for role, release in enumerate(("12", "13")):
        drift.follow(role, release, read_promise(state.document(role, release)))
    stream = tell(TOPICS, seed=5, rows=3000, now_ms=now_ms, catch=0.5, shift=1.0)
    batch = Intake(TOPICS).read(stream.inputs(random.Random(1)))
    state.apply(batch, {}, drift.update(batch.payments, batch.decisions))
    reporter = Reporter(state, settings)
    monitor = SimpleNamespace(
        document=reporter.report(now_ms) | {"lag_records": dict.fromkeys(TOPICS, 0)},
        last_turn=time.monotonic(),
        last_commit=time.time(),
        broker_answered_at=time.monotonic(),
        waits_for=None,
    )
    view = View(5.0, 900.0)
    view.monitor = monitor
    server = serve_page("127.0.0.1", 0, view)
    yield SimpleNamespace(monitor=monitor, view=view, url=f"http://127.0.0.1:{server.port}/")
    server.close()
    state.close()


@pytest.mark.parametrize("width", [1100, 390], ids=["desk", "phone"])
def test_it_shows_what_the_data_says(shown: SimpleNamespace, tmp_path: Path, width: int) -> None:
    document = httpx.get(f"{shown.url}quality.json").json()
    dom, console = browse(shown.url, tmp_path, width=width)
    assert not console
    assert dom.state() == "ok"
    assert next(one for one in dom.elements if one["tag"] == "body")["data-overflow"] == "0"
    for one in document["releases"]:
        figures = one["windows"]["since_release"]
        for path in ("alarm_rate", "recall", "precision", "cost_saved", "control.recall", "fraud_rate"):
            check_figure(dom, path, one["role"], find(figures, path))
        assert (
            dom.having(data_count="decisions", data_who=one["role"])[0]["text"] == f"{figures['decisions']:,}"
        )
    for name, figure in document["shadow"]["windows"]["since_release"]["differences"].items():
        check_figure(dom, f"difference.{name}", "pair", figure)
    for pair, count in document["shadow"]["windows"]["since_release"]["agreement"].items():
        assert dom.having(data_pair=pair)[0]["text"] == f"{count:,}"
    for one in document["drift"]:
        found = dom.having(data_series=one["series"], data_who=one["role"])[0]
        assert float(found["data-divergence"] or "nan") == one["divergence"]
    assert any(one["series"] == "V14" and one["is_drifted"] for one in document["drift"])
    assert dom.having(id="advice")[0]["text"] == document["retraining"]["sentence"]
    assert document["retraining"]["advised"]
    alarms = [one for one in dom.elements if one["tag"] == "li" and one.get("class") == "active"]
    assert len(alarms) == len([one for one in document["alarms"] if one["until_ms"] is None])
    assert len([one for one in dom.elements if one["tag"] == "canvas"]) == 3


def find(figures: dict[str, Any], path: str) -> dict[str, Any]:
    for key in path.split("."):
        figures = figures[key]
    return figures


def check_figure(dom: Dom, path: str, who: str, figure: dict[str, Any]) -> None:
    (cell,) = dom.having(data_figure=path, data_who=who)
    for bound, value in figure.items():
        text = cell[f"data-{bound}"]
        assert (text == "") if value is None else (float(text or "nan") == value), (path, bound)


def test_it_updates_by_itself(shown: SimpleNamespace, tmp_path: Path) -> None:
    asked: list[int] = []
    report = shown.view.document

    def next_document() -> dict[str, Any]:
        asked.append(1)
        return report() | {"sentence": f"Answer {len(asked)}."}

    shown.view.document = next_document
    dom, console = browse(shown.url, tmp_path, wait_ms=12_000)
    assert not console
    assert len(asked) >= 2
    assert dom.having(id="state")[0]["text"] != "Answer 1."


def test_empty_stale_and_failed_say_so(shown: SimpleNamespace, tmp_path: Path) -> None:
    shown.monitor.broker_answered_at -= 120
    dom, _ = browse(shown.url, tmp_path)
    assert dom.state() == "stale"
    assert "broker has not answered" in (dom.having(id="state")[0]["text"] or "")
    shown.view.failed_by = "the disk is full"
    dom, _ = browse(shown.url, tmp_path)
    assert (dom.state(), dom.having(id="state")[0]["text"]) == (
        "failed",
        "The monitor has stopped: the disk is full",
    )
    shown.view.failed_by, shown.view.monitor = None, None
    dom, console = browse(shown.url, tmp_path)
    assert dom.state() == "empty" and not console


def test_a_monitor_that_goes_away_under_the_open_page_is_told(shown: SimpleNamespace, tmp_path: Path) -> None:
    report, asked = shown.view.document, []

    def go_away() -> dict[str, Any]:
        asked.append(1)
        if len(asked) > 1:
            raise ConnectionAbortedError
        found: dict[str, Any] = report()
        return found

    shown.view.document = go_away
    dom, _ = browse(shown.url, tmp_path, wait_ms=12_000)
    assert len(asked) >= 2
    text = dom.having(id="state")[0]["text"] or ""
    assert dom.state() == "unreachable" and "cannot be reached" in text and "as of" in text
    assert "never" not in text  # what was shown before stays, with its time
    assert dom.having(id="advice")[0]["text"]
