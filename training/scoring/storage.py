"""Files and folders under an address: local and mounted disks, object stores and HDFS, through Arrow.

Arrow's file systems need no Java in the tasks and find credentials the way each cloud's own tools do; what
they do not know goes through the fsspec package for its scheme, where one is installed.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from training.errors import OutputError, TrainingError, UsageError

# Hadoop's names of object stores that Arrow knows by another one.
SCHEMES = {"s3a": "s3", "s3n": "s3", "abfss": "abfs"}


@dataclass(frozen=True)
class Storage:
    """A file or folder by its address; opened in each process that uses it."""

    address: str

    @classmethod
    def at(cls, address: str) -> Storage:
        """Return what lies at a path of this process's working folder, or at an address."""
        return cls(address if "://" in address else str(Path(address).absolute()))

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        scheme, mark, rest = self.address.partition("://")
        if not mark:
            return fs.LocalFileSystem(), self.address
        with translate_storage_errors(self.address):
            try:
                opened: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(
                    f"{SCHEMES.get(scheme.lower(), scheme)}://{rest}"
                )
            except pa.ArrowInvalid:
                return _open_with_fsspec(self.address)
        return opened

    @property
    def filesystem(self) -> fs.FileSystem:
        """The file system that the address names."""
        return self._opened[0]

    @property
    def path(self) -> str:
        """The path there."""
        return self._opened[1].rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether files can be opened where they are."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def relative(self, path: str) -> str:
        """Return a path of the file system relative to this folder; the name alone where this is a file."""
        inside = path.removeprefix(f"{self.path}/")
        return inside if inside != path else Path(path).name

    def lies_in(self, other: Storage) -> bool:
        """Say whether this is `other`, or in it."""
        same = self.filesystem == other.filesystem
        return same and f"{self.path}/".startswith(f"{other.path}/")

    def join(self, relative: str) -> str:
        """Return the path of what lies in this folder."""
        return f"{self.path}/{relative}"

    @contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        """Yield a local path of a file; a file elsewhere is copied to temporary space while it is used."""
        if self.is_local:
            yield Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="scoring-") as folder:
            copy = Path(folder) / Path(path).name
            with self.filesystem.open_input_stream(path) as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            yield copy

    @contextmanager
    def replace_when_done(self, relative: str) -> Iterator[pa.NativeFile]:
        """Yield a stream to a file that appears whole or not at all, and replaces what was there.

        Two tasks may write the same file at once, as when Spark believes the first one lost: each writes
        under a name of its own, and the contents are equal.
        """
        path, part = self.join(relative), self.join(f"_tmp/{uuid.uuid4().hex}")
        for folder in (path, part):
            self.filesystem.create_dir(folder.rpartition("/")[0], recursive=True)
        with self.filesystem.open_output_stream(part) as stream:
            yield stream
        self.filesystem.move(part, path)

    def write(self, relative: str, content: bytes) -> None:
        """Write a small file whole or not at all."""
        with self.replace_when_done(relative) as stream:
            stream.write(content)

    def read(self, relative: str) -> bytes | None:
        """Return a small file's content; None where there is none."""
        try:
            with self.filesystem.open_input_stream(self.join(relative)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def files(self, relative: str = "") -> set[str]:
        """Return the paths of all files in a folder and below, relative to this one."""
        selector = fs.FileSelector(self.join(relative).rstrip("/"), recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return {self.relative(info.path) for info in infos if info.type == fs.FileType.File}

    def delete(self, relative: str) -> None:
        """Delete a file, where there is one."""
        if self.filesystem.get_file_info(self.join(relative)).type == fs.FileType.File:
            self.filesystem.delete_file(self.join(relative))

    def delete_folder(self, relative: str) -> None:
        """Delete a folder with all in it, where there is one."""
        if self.filesystem.get_file_info(self.join(relative)).type == fs.FileType.Directory:
            self.filesystem.delete_dir(self.join(relative))


def _open_with_fsspec(address: str) -> tuple[fs.FileSystem, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        scheme = address.partition("://")[0]
        raise UsageError(
            f"{address}: neither Arrow nor an installed fsspec package opens {scheme}:// ({error})"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


@contextmanager
def translate_storage_errors(address: str) -> Iterator[None]:
    """Turn what a file system refuses into one sentence; Arrow's own run to a page."""
    try:
        yield
    except TrainingError:
        raise
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0][:200]
        raise OutputError(f"{address}: {reason}") from error
