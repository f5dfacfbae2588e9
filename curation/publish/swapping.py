"""Replacing a folder by a new one, so that no reader sees half of it. Knows nothing of datasets.

A reader of a local folder sees the old one or the new one, also when the process is killed at any moment.
Object stores cannot swap folders: there the new files are uploaded beside the old ones first, and are then
copied one by one over them, after which files that are no longer part of the folder are removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from curation.errors import InputError

__all__ = ["Folder", "dataset_folder"]

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


class Folder(Protocol):
    """A folder that is being replaced."""

    def stage(self, path: str, data: bytes) -> None:
        """Write a file of the new folder, at a path relative to it."""
        ...

    def digests(self) -> dict[str, str]:
        """Relative path to SHA-256, of the files of the folder that readers see."""
        ...

    def read(self, path: str) -> bytes | None:
        """A file of the folder that readers see, None where there is none."""
        ...

    def swap(self, paths: Sequence[str]) -> None:
        """Show readers the new folder, which consists of the files at ``paths``."""
        ...


@contextlib.contextmanager
def dataset_folder(folder: str, filesystem: Any = None) -> Iterator[Folder]:
    """A folder to replace, on the local disk (None) or on an fsspec file system.

    What a killed process left about is cleared first; what is staged and not swapped in is cleared last.
    """
    if filesystem is None or "file" in _protocols(filesystem):
        place: _Local | _Remote = _Local(folder)
    else:
        place = _Remote(folder, filesystem)
    place.recover()
    try:
        yield place
    finally:
        place.clear()


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise InputError(f"file {path!r} would lie outside the dataset's folder")
    return path


class _Local:
    def __init__(self, folder: str) -> None:
        self._folder = Path(folder.removeprefix("file://"))
        self._new = self._folder.with_name(f".{self._folder.name}.new")
        self._old = self._folder.with_name(f".{self._folder.name}.old")

    def recover(self) -> None:
        if self._old.exists() and not self._folder.exists():
            self._old.rename(self._folder)
        self.clear()
        self._new.mkdir(parents=True)

    def clear(self) -> None:
        shutil.rmtree(self._new, ignore_errors=True)
        if self._folder.exists():
            shutil.rmtree(self._old, ignore_errors=True)

    def stage(self, path: str, data: bytes) -> None:
        target = self._new / _inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def digests(self) -> dict[str, str]:
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return {path.relative_to(self._folder).as_posix(): _digest(path) for path in files}

    def read(self, path: str) -> bytes | None:
        file = self._folder / _inside(path)
        return file.read_bytes() if file.is_file() else None

    def swap(self, paths: Sequence[str]) -> None:
        if not self._folder.exists():
            self._new.rename(self._folder)
        elif not _exchange(self._new, self._folder):
            self._folder.rename(self._old)
            self._new.rename(self._folder)


class _Remote:
    def __init__(self, folder: str, filesystem: Any) -> None:
        self._fs = filesystem
        self._folder = filesystem._strip_protocol(folder).rstrip("/")
        head, _, name = self._folder.rpartition("/")
        self._new = f"{head}/.{name}.new"

    def recover(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._fs.invalidate_cache()
        if self._fs.exists(self._new):
            self._fs.rm(self._new, recursive=True)

    def stage(self, path: str, data: bytes) -> None:
        self._make_parent(f"{self._new}/{_inside(path)}")
        self._fs.pipe_file(f"{self._new}/{path}", data)

    def digests(self) -> dict[str, str]:
        contents = ((path, self._fs.cat_file(f"{self._folder}/{path}")) for path in self._existing())
        return {path: hashlib.sha256(data).hexdigest() for path, data in contents}

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(f"{self._folder}/{_inside(path)}"))
        except FileNotFoundError:
            return None

    def swap(self, paths: Sequence[str]) -> None:
        stale = sorted(set(self._existing()) - set(paths))
        for path in paths:
            self._make_parent(f"{self._folder}/{path}")
            self._fs.copy(f"{self._new}/{path}", f"{self._folder}/{path}")
        for path in stale:
            self._fs.rm_file(f"{self._folder}/{path}")

    def _existing(self) -> list[str]:
        self._fs.invalidate_cache()
        if not self._fs.exists(self._folder):
            return []
        return [path[len(self._folder) + 1 :] for path in self._fs.find(self._folder)]

    def _make_parent(self, path: str) -> None:
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step where the system can (Linux's renameat2); False where it cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))
