"""Settings: file, variables, and what is refused at start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bentos.errors import SettingsError
from bentos.settings.load import Settings, load_settings, process_settings
from bentos.settings.sections import LimitSettings

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the file that `load_settings` reads."""
    path = tmp_path / "serving.yaml"
    monkeypatch.setenv("SERVING__CONFIG", str(path))
    return path


def test_the_file_holds_the_defaults() -> None:
    assert load_settings().model_dump() == Settings().model_dump()


def test_the_default_limits_last() -> None:
    """Time up to 1e7 s refused all on day 116 of a stream; Amount, sums in currencies of small units."""
    limits = LimitSettings()
    assert limits.time_max_s > 100 * 365 * 86_400
    assert limits.amount_max >= 1e12
    files = [
        yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text()) for name in ("serving", "training")
    ]
    assert files[0]["limits"] == files[1]["limits"], "training refuses what the service takes, or the reverse"


def test_a_flag_beats_a_variable_beats_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("{gateway: {deadline_ms: 700, retry_after_s: 3, gather_rows: 5}, port: 4000}")
    monkeypatch.setenv("SERVING__GATEWAY__DEADLINE_MS", "900")
    monkeypatch.setenv("SERVING__GATEWAY__RETRY_AFTER_S", "4")
    monkeypatch.setenv("SERVING__SECURITY__API_KEYS", '["a", "b"]')
    settings = load_settings({"gateway": {"deadline_ms": 1000}})
    gateway = settings.gateway
    assert (gateway.deadline_ms, gateway.retry_after_s, gateway.gather_rows) == (1000, 4, 5)
    assert [key.get_secret_value() for key in settings.security.api_keys] == ["a", "b"]
    assert (settings.port, gateway.workers) == (4000, 1)


def test_an_empty_variable_counts_as_not_set(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("{release: '7', security: {api_keys_file: keys}}")
    for name in ("RELEASE", "SECURITY__API_KEYS_FILE", "GATEWAY__DEADLINE_MS", "SECURITY"):
        monkeypatch.setenv(f"SERVING__{name}", "")
    settings = load_settings()
    assert (settings.release, settings.security.api_keys_file) == ("7", Path("keys"))
    monkeypatch.setenv("SERVING__CONFIG", "")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unknown: 1", "unknown (file {file}): is no setting"),
        ("gateway: {dead_line_ms: 1}", "gateway.dead_line_ms (file {file}): is no setting"),
        ("gateway: {deadline_ms: 0}", "gateway.deadline_ms (file {file}): Input should be greater than 0"),
        ("gateway: 3", "gateway (file {file}): Input should be"),
        ("limits: {amount_max: 1.0e+39}", "limits.amount_max (file {file})"),
        ("limits: {amount_max: .nan}", "limits.amount_max (file {file})"),
        ("neural_net: {max_batch_rows: many}", "neural_net.max_batch_rows (file {file})"),
        ("security: {tls: {certificate_file: a.pem}}", "security.tls (file {file}): certificate_file and"),
        ("[1, 2]", "file {file}: must hold settings by name"),
        ("port: 1\nport: [", "file {file}: line 2 is not YAML"),
        (None, "file {file}: No such file"),
    ],
)
def test_wrong_settings_are_refused_with_key_and_source(text: str | None, words: str, file: Path) -> None:
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert words.format(file=file) in str(caught.value)
    assert str(caught.value).startswith("Wrong settings: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SERVING__NO_SUCH_THING__AT_ALL", "1", "no_such_thing.at_all (variable {name}): is no setting"),
        ("SERVING__GATEWAY__DEADLINE_S", "1", "gateway.deadline_s (variable {name}): is no setting"),
        ("SERVING__GATEWAY__DEADLINE_MS", "soon", "gateway.deadline_ms (variable {name}): Input should be"),
        ("SERVING__GATEWAY", '{"deadline_ms": 0}', "gateway.deadline_ms (variable {name})"),
        (
            "SERVING__SECURITY__API_KEYS",
            "hush",
            "security (variable {name}): a list or a section must be",
        ),
        ("SERVING__CONFIG", "missing.yaml", "file missing.yaml: No such file"),
    ],
)
def test_wrong_variables_are_refused_by_name(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert words.format(name=variable) in str(caught.value)
    assert "hush" not in str(caught.value)


def test_secrets_stay_out_of_messages(file: Path) -> None:
    file.write_text("security: {api_keys: hush-hush}")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(Settings(security={"api_keys": ["hush-hush"]}))


def test_wrong_settings_end_the_process_with_status_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("port: none")
    process_settings.cache_clear()
    with pytest.raises(SystemExit) as caught:
        process_settings()
    assert caught.value.code == 2
    assert "port (file " in capsys.readouterr().err


TAKEN = "a port that is taken"


def longest(folder: Path) -> str:
    path = folder / ("x" * (60 - len(str(folder)) if len(str(folder)) < 55 else 60))
    path.mkdir(parents=True)
    return str(path)


@pytest.mark.parametrize(
    ("variables", "status", "words"),
    [
        ({"SERVING__GATEWAY__DEADLINE_MS": "soon"}, 2, "gateway.deadline_ms"),
        ({"SERVING__RELEASE": "99"}, 1, "release 99"),
        ({"SERVING__SECURITY__API_KEYS": '[""]'}, 2, "security.api_keys (variable"),
        (
            {"SERVING__SECURITY__API_KEYS_FILE": "missing"},
            2,
            "api_keys_file: missing cannot be read",
        ),
        ({"SERVING__SECURITY__API_KEYS_FILE": os.devnull}, 2, "holds no key"),
        (
            {
                "SERVING__SECURITY__TLS__CERTIFICATE_FILE": "c.pem",
                "SERVING__SECURITY__TLS__KEY_FILE": "k.pem",
            },
            2,
            "security.tls.certificate_file: there is no file c.pem",
        ),
        (
            {
                "SERVING__SECURITY__TLS__CERTIFICATE_FILE": "pyproject.toml",
                "SERVING__SECURITY__TLS__KEY_FILE": "pyproject.toml",
            },
            2,
            "security.tls: certificate, key",
        ),
        ({"TMPDIR": "LONG"}, 2, "(TMPDIR) has too long a name"),
        ({"PORT": TAKEN}, 2, "cannot be used: Address already in use"),
    ],
)
def test_serve_ends_with_one_sentence(
    variables: dict[str, str], status: int, words: str, tmp_path: Path, small_home: Path
) -> None:
    """Before the port is bound: nothing is left that neither serves nor ends."""
    variables = dict(variables)
    if variables.get("TMPDIR"):
        variables["TMPDIR"] = longest(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1]) if variables.pop("PORT", "") else "0"
        done = subprocess.run(
            [str(Path(sys.executable).parent / "bentoml"), "serve", "--host", "127.0.0.1", "--port", port],
            cwd=ROOT,
            env={**os.environ, "BENTOML_HOME": str(small_home), "BENTOML_DO_NOT_TRACK": "True", **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "\n" not in done.stderr.strip()
