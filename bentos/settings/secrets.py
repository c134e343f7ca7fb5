"""Secrets from files."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from bentos.errors import SettingsError


def read_secret(value: SecretStr | None, file: Path | None, name: str) -> str | None:
    """Return a secret from its file, else from its value, else None.

    Raises
    ------
    SettingsError
        If the file cannot be read or is empty.
    """
    if file is None:
        return value.get_secret_value() if value else None
    text = read_text(file, name).strip()
    if not text:
        raise SettingsError(f"{name}: {file} is empty.")
    return text


def read_text(file: Path, name: str) -> str:
    """Return the text of a file that the setting `name` names; raises as `read_secret` does."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsError(f"{name}: {file} cannot be read: {reason}.") from None
