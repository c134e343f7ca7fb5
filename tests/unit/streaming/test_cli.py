import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from streaming.__main__ import main
from streaming.observability import logging as logs
from streaming.settings.load import Settings
from streaming.settings.sections import LogSettings

ROOT = Path(__file__).parents[3]
NOWHERE = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("COLUMNS", "300")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["streaming", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("STREAMING__", "KAFKA_"))
    }
    command = [sys.executable, "-m", "streaming", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**env, "COLUMNS": "300", **variables},
    )


@pytest.mark.parametrize("command", ["bridge", "replay", "redrive", "backfill"])
def test_help_explains_every_flag_with_its_default(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "(default: 127.0.0.1:9092)" in done.stdout
    flags = [
        line
        for line in done.stdout.splitlines()
        if "--" in line and "--help" not in line and "Usage" not in line
    ]
    assert all("default" in line or "[required]" in line for line in flags), flags


@pytest.mark.parametrize(
    ("command", "flag", "given", "place", "variable", "expected"),
    [
        ("replay", ["--data", "a.csv"], "a.csv", "replay.data", "b.csv", "b.csv"),
        ("replay", ["--limit", "5"], 5, "replay.limit", "7", 7),
        ("replay", ["--no-loop"], False, "replay.loop", "true", True),
        ("redrive", ["--reason", "not_json"], "not_json", "redrive.reason", "not_an_object", "not_an_object"),
        ("redrive", ["--no-dry-run"], False, "redrive.dry_run", "1", True),
        ("backfill", ["--output-topic", "x"], "x", "backfill.output_topic", "y", "y"),
        ("backfill", ["--from", "5"], "5", "backfill.begin", "2026-01-01T00:00:00", "2026-01-01T00:00:00"),
        ("backfill", ["--to", "9"], "9", "backfill.end", "8", "8"),
        ("backfill", ["--report", "a.json"], Path("a.json"), "backfill.report", "b.json", Path("b.json")),
        ("backfill", ["--compare-topic", "x"], "x", "topics.output", "y", "y"),
    ],
)
def test_what_a_flag_says_a_variable_can_say_too(
    command: str,
    flag: list[str],
    given: object,
    place: str,
    variable: str,
    expected: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr(f"streaming.commands.{command}.run_{command}", seen.append)
    monkeypatch.setattr(logs, "configure", lambda settings: None)
    section, name = place.split(".")
    monkeypatch.setenv(f"STREAMING__{place.replace('.', '__').upper()}", variable)
    for arguments, value in (([], expected), (flag, given)):
        assert call(monkeypatch, command, *arguments) == 0
        assert getattr(getattr(seen.pop(), section), name) == value


@pytest.mark.parametrize(
    ("arguments", "variables", "text"),
    [
        (["bridge", "--instance-id", "a b"], {}, "bridge.instance_id"),
        (["bridge", "--nonsense"], {}, "--nonsense"),
        (["bridge", "--metrics-port", "x"], {}, "metrics-port"),
        (["bridge"], {"STREAMING__BRIDGE__NONSENSE": "1"}, "nonsense"),
        (["bridge", "--input-topic", "decisions"], {}, "must differ"),
        (["replay", "--rate", "-1"], {}, "replay.rate"),
        (["nonsense"], {}, "nonsense"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_sentence(
    arguments: list[str],
    variables: dict[str, str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert call(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said


@pytest.mark.parametrize("arguments", [["bridge", "--metrics-port", "0"], ["replay", "--data", "x.csv"]])
def test_a_broker_out_of_reach_ends_with_1_and_what_to_do(arguments: list[str]) -> None:
    done = run(*arguments, "--bootstrap-servers", NOWHERE, STREAMING__KAFKA__CONNECT_TIMEOUT_S="0.5")
    assert done.returncode == 1, done
    assert f"Kafka cannot be reached at {NOWHERE}" in done.stderr
    assert "--bootstrap-servers" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_none_ends_with_2_before_anything_is_asked() -> None:
    done = run("bridge", "--classify-url", "http://h:port/classify", "--bootstrap-servers", NOWHERE)
    assert done.returncode == 2, done
    assert done.stderr == "service.classify_url is no address: Invalid port: 'port'.\n"


def test_logs_are_json_when_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        logs.configure(LogSettings())
        structlog.get_logger().info("summary", decided=7)
        structlog.get_logger().debug("hidden")
    finally:
        structlog.reset_defaults()
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert (found["event"], found["decided"], found["level"]) == ("summary", 7, "info")
