"""Settings: file, variables, and what is refused at start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bentos.settings import DEFAULT_CONFIG, Settings, load_settings, read_settings

ROOT = Path(__file__).parents[3]


def test_the_file_holds_the_defaults() -> None:
    assert read_settings(DEFAULT_CONFIG).model_dump() == Settings().model_dump()


def test_a_variable_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "serving.yaml"
    file.write_text("gateway: {deadline_ms: 700, retry_after_s: 3}")
    monkeypatch.setenv("SERVING__GATEWAY__DEADLINE_MS", "900")
    monkeypatch.setenv("SERVING__SECURITY__API_KEYS", '["a", "b"]')
    settings = read_settings(file)
    assert (settings.gateway.deadline_ms, settings.gateway.retry_after_s) == (900, 3)
    assert [key.get_secret_value() for key in settings.security.api_keys] == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "unknown: 1",
        "gateway: {dead_line_ms: 1}",
        "gateway: {deadline_ms: 0}",
        "limits: {amount_max: 1.0e+39}",
        "limits: {amount_max: .nan}",
        "neural_net: {max_batch_rows: many}",
        "security: {tls: {certificate_file: a.pem}}",
        "[1, 2]",
    ],
)
def test_wrong_settings_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "serving.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"serving\.yaml"):
        read_settings(file)


def test_secrets_stay_out_of_messages(tmp_path: Path) -> None:
    file = tmp_path / "serving.yaml"
    file.write_text("security: {api_keys: hush-hush}")
    with pytest.raises(ValueError) as caught:
        read_settings(file)
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(Settings(security={"api_keys": ["hush-hush"]}))


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SERVING__NO_SUCH_THING__AT_ALL", "1", "no_such_thing"),
        ("SERVING__GATEWAY__DEADLINE_S", "1", "gateway.deadline_s"),
        ("SERVING__CONFIG", "missing.yaml", "missing.yaml"),
    ],
)
def test_wrong_variables_end_the_process(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    load_settings.cache_clear()
    with pytest.raises(SystemExit) as caught:
        load_settings()
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "status", "words"),
    [
        ({"SERVING__GATEWAY__DEADLINE_MS": "soon"}, 2, "gateway.deadline_ms"),
        ({"SERVING__RELEASE": "99"}, 1, "release 99"),
    ],
)
def test_serve_ends_with_one_sentence(
    variables: dict[str, str], status: int, words: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "bentoml"), "serve", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "\n" not in done.stderr.strip()
