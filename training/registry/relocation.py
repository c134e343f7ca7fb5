"""A SQLite registry that was moved with its artefacts: MLflow keeps absolute paths, which lead nowhere."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Where MLflow 3 keeps paths of artefacts.
_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
FOLDER = "mlruns"


def artifact_folder(tracking_uri: str) -> Path | None:
    """Return where artefacts of a SQLite registry lie, beside its file; None for any other registry."""
    database = sqlite_file(tracking_uri)
    return None if database is None else database.parent / FOLDER


def sqlite_file(tracking_uri: str) -> Path | None:
    """Return the file of a SQLite registry; None for any other."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0]).resolve()


def relocate_artifacts(tracking_uri: str) -> list[str]:
    """Let paths that lead nowhere point beside the database, if the artefacts are there; return old folders.

    A folder that still exists is left alone: then the database was copied, and shares its artefacts.
    """
    database, folder = sqlite_file(tracking_uri), artifact_folder(tracking_uri)
    if database is None or folder is None or not database.is_file() or not folder.is_dir():
        return []
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in found}
        if not tables >= set(_PLACES):
            return []
        moved = [old for old in _old_folders(connection) if _is_gone(old) and old != folder.as_uri()]
        for old in moved:
            for table, columns in _PLACES.items():
                for column in columns:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names above
                        f"WHERE substr({column}, 1, ?) = ?",
                        (folder.as_uri(), len(old) + 1, len(old) + 1, old + "/"),
                    )
    return moved


def _old_folders(connection: sqlite3.Connection) -> set[str]:
    query = "SELECT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%'"
    folders = {location.rpartition("/")[0] for (location,) in connection.execute(query)}
    return {folder for folder in folders if folder.endswith(f"/{FOLDER}")}


def _is_gone(uri: str) -> bool:
    return not Path(unquote(urlsplit(uri).path)).exists()
