"""Keys: who gets in, and where no key is asked."""

from pathlib import Path

import pytest

from bentos.errors import SettingsError, UnauthorizedError
from bentos.gateway.auth import ApiKeyAuth
from bentos.settings.sections import SecuritySettings

KEYS = SecuritySettings(api_keys=("first-key", "second-key"))


def is_admitted(auth: ApiKeyAuth, path: str, **headers: str) -> bool:
    raw = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    try:
        auth.authorize(path, raw)
    except UnauthorizedError:
        return False
    return True


def test_without_keys_everything_is_open() -> None:
    assert is_admitted(ApiKeyAuth(SecuritySettings()), "/classify")


@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_each_key_opens_by_either_header(key: str) -> None:
    auth = ApiKeyAuth(KEYS)
    assert is_admitted(auth, "/classify", x_api_key=key)
    assert is_admitted(auth, "/info", authorization=f"Bearer {key}")
    assert is_admitted(auth, "/info", authorization=f"bearer  {key} ")


@pytest.mark.parametrize("key", ["", "first", "first-key ", "FIRST-KEY", "first-keysecond-key", "é"])
def test_nothing_else_does(key: str) -> None:
    auth = ApiKeyAuth(KEYS)
    assert not is_admitted(auth, "/classify", x_api_key=key)
    assert not is_admitted(auth, "/classify", authorization=f"Basic {key}")
    assert not is_admitted(auth, "/classify")


def test_a_wrong_key_is_not_mended_by_the_other_header() -> None:
    assert not is_admitted(ApiKeyAuth(KEYS), "/classify", x_api_key="wrong", authorization="Bearer first-key")


@pytest.mark.parametrize(
    ("setting", "path"),
    [("open_health", "/readyz"), ("open_metrics", "/metrics"), ("open_docs", "/docs.json")],
)
def test_what_is_open_is_a_setting(setting: str, path: str) -> None:
    for is_open in (True, False):
        auth = ApiKeyAuth(SecuritySettings(api_keys=("key",), **{setting: is_open}))
        assert is_admitted(auth, path) is is_open


def test_keys_from_a_file_one_per_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("third\n\n  fourth \n")
    auth = ApiKeyAuth(SecuritySettings(api_keys=("first",), api_keys_file=file))
    assert all(is_admitted(auth, "/classify", x_api_key=key) for key in ("first", "third", "fourth"))
    assert not is_admitted(auth, "/classify", x_api_key="")


def test_a_file_without_keys_does_not_open_the_service(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n")
    with pytest.raises(SettingsError, match=r"api_keys_file: .* holds no key"):
        ApiKeyAuth(SecuritySettings(api_keys_file=tmp_path / "keys"))
    with pytest.raises(SettingsError, match=r"api_keys_file: .* cannot be read: No such file"):
        ApiKeyAuth(SecuritySettings(api_keys_file=tmp_path / "missing"))


@pytest.mark.parametrize("keys", [("",), (" ",), ("key", "")])
def test_a_blank_key_is_refused(keys: tuple[str, ...]) -> None:
    """It opened the service to all while the document said that a key is required."""
    with pytest.raises(ValueError, match="a key is blank"):
        SecuritySettings(api_keys=keys)


def test_keys_are_rotated_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentos.gateway.auth.LOOK_INTERVAL_S", 0.0)
    file = tmp_path / "keys"
    file.write_text("old\n")
    auth = ApiKeyAuth(SecuritySettings(api_keys=("first",), api_keys_file=file))

    def admitted() -> list[str]:
        return [key for key in ("first", "old", "new") if is_admitted(auth, "/classify", x_api_key=key)]

    assert admitted() == ["first", "old"]
    file.write_text("old\nnew\n")
    assert admitted() == ["first", "old", "new"]
    file.write_text("new\n")
    assert admitted() == ["first", "new"]
    file.write_text("\n")
    assert admitted() == ["first", "new"], "a file without keys changes nothing"
    file.unlink()
    assert admitted() == ["first", "new"]
    file.write_text("old, but again\n")
    assert admitted() == ["first"]
