import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from training.errors import LiveComparisonError
from training.evaluation.live import judge_live, read_live
from training.settings.sections import GateSettings


def figure(value, low, high):
    return {"value": value, "low": low, "high": high, "n": 40}


def quality(**changes):
    window = {
        "compared": 50_000,
        "frauds": 40,
        "genuine": 300,
        "differences": {"recall": figure(0.02, -0.03, 0.08), "cost_saved": figure(0.01, -0.05, 0.07)},
    }
    window["differences"] |= changes.pop("differences", {})
    window |= changes.pop("window", {})
    shadow = {"champion": "12", "challenger": "13", "windows": {"since_release": window}}
    return {"schema": 1, "state": "ok", "sentence": "", "shadow": shadow, **changes}


def ask(document, champion="12", challenger="13"):
    return judge_live(document, champion, challenger, GateSettings())


def test_a_challenger_that_does_as_well_passes_and_the_notes_say_on_what():
    reasons, notes = ask(quality())
    assert not reasons
    assert "on 50,000 transactions with 40 labelled frauds and 300 labelled genuine" in notes[0]
    assert "recall +0.020 [-0.030, +0.080]" in notes[0]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (quality(state="stale", sentence="no transaction for 2 h"), "not usable: no transaction for 2 h"),
        (quality(shadow=None), "has seen no challenger"),
        (quality(window={"frauds": 3}), "3 labelled frauds: too few"),
        (quality(window={"differences": {}}), "lacks what the gate needs"),
        (quality(differences={"recall": figure(None, None, None)}), "is not known yet"),
        (quality(differences={"recall": figure(-0.2, -0.3, -0.1)}), "a loss of 0.02 is allowed"),
        (quality(differences={"recall": figure(-0.03, -0.1, 0.1)}), "a loss of 0.02 is allowed"),
        (quality(differences={"cost_saved": figure(float("nan"), 0.0, 0.1)}), "is allowed"),
        ({"state": "ok", "shadow": {"champion": "12", "challenger": "13"}}, "lacks what the gate needs"),
    ],
)
def test_what_is_worse_or_cannot_be_told_is_refused(document, words):
    reasons, _ = ask(document)
    assert words in "; ".join(reasons)


def test_a_loss_that_is_allowed_passes_however_certain_it_is():
    assert not ask(quality(differences={"recall": figure(-0.01, -0.015, -0.005)}))[0]


def test_a_comparison_of_other_releases_says_nothing():
    assert "compares release 13 with 12, not 14 with 12" in ask(quality(), challenger="14")[0][0]


def test_it_is_read_from_a_file_or_over_http(tmp_path):
    path = tmp_path / "quality.json"
    path.write_text(json.dumps(quality()))
    assert read_live(str(path)) == quality()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(path.read_bytes())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert read_live(f"http://127.0.0.1:{server.server_port}/quality.json") == quality()


def test_what_cannot_be_read_is_one_sentence(tmp_path, free_port):
    path = tmp_path / "quality.json"
    for content, words in ((None, "No such file"), ("{", "not JSON"), ("[]", "not the monitor's")):
        if content is not None:
            path.write_text(content)
        with pytest.raises(LiveComparisonError, match=words):
            read_live(str(path))
    with pytest.raises(LiveComparisonError, match=r"gate\.live\) cannot be read"):
        read_live(f"http://127.0.0.1:{free_port()}/quality.json")
