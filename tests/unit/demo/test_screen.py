"""The demo's screen must work with and without a terminal."""

import io

import pytest
from rich.console import Console

from demo.screen import PLAIN_LINE_S, Screen


@pytest.mark.parametrize("terminal", [True, False])
def test_a_step_ends_in_one_line_with_its_result(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    screen = Screen(console, steps=2)
    with screen.step("Start a Kafka broker") as step:
        step.say("starting")
        step.done("at 127.0.0.1:9092")
    with screen.step("Replay") as step, screen.live(10) as live:
        live.show(5, alarms=1, caught=1, frauds=2)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "1/2 Start a Kafka broker ok" in text.replace("\x1b[1m", "").replace("\x1b[0m", "").replace(
        "\x1b[32m", ""
    )
    assert "at 127.0.0.1:9092" in text


def test_without_a_terminal_a_long_stream_prints_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=120)
    now = [0.0]
    monkeypatch.setattr("demo.screen.time.monotonic", lambda: now[0])
    with Screen(console, 1).live(1000) as live:
        for decided in (100, 600):
            now[0] += PLAIN_LINE_S + 1
            live.show(decided, alarms=3, caught=2, frauds=2)
    assert isinstance(console.file, io.StringIO)
    assert "600/1,000 decided  50/s  3 alarms  2/2 frauds caught" in console.file.getvalue()
