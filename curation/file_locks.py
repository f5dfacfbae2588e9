"""Locks of a workspace on a local disk: files that end with the process that holds them. Object stores have leases
instead (``curation.lease``); who takes which is in ``curation.workspace``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from curation.errors import WorkspaceError

__all__ = ["file_locked", "file_locks_held"]

_SECONDS_OF_A_LOOK: Final = 1.0
"""Whoever looks which locks are held takes each for a moment, and no run is to end for that."""


@contextmanager
def file_locked(folder: Path, name: str, *, url: str) -> Iterator[None]:
    """Hold a lock; ``url`` is what an error calls the workspace.

    Raises:
        OSError: when the lock's file cannot be written.
        WorkspaceError: when another process holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f"{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_SECONDS_OF_A_LOOK, poll_interval=0.02)
    except Timeout as error:
        raise WorkspaceError(
            f"{url} is in use by {_holder(folder, name)}: wait until it is done, or use another --workspace"
        ) from error
    owner = _owner(folder, name)
    try:
        # Who holds it is for people only; on a disk that is full or read-only, the tables' error says so.
        with suppress(OSError):
            owner.write_text(f"process {os.getpid()}\n")
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def file_locks_held(folder: Path) -> list[dict[str, Any]]:
    """The locks in a folder that somebody holds now: name and holder."""
    from filelock import FileLock, Timeout

    held = []
    for path in sorted(folder.glob("*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            held.append({"name": path.stem, "holder": _holder(folder, path.stem)})
        except OSError:
            # Of a workspace that may only be read, too, people ask who holds it.
            if _locked_elsewhere(path):
                held.append({"name": path.stem, "holder": _holder(folder, path.stem)})
    return held


def _locked_elsewhere(path: Path) -> bool:
    """Whether another process holds a lock's file, which is opened for reading; False where it cannot be told."""
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _owner(folder: Path, name: str) -> Path:
    return folder / f"{name}.owner"


def _holder(folder: Path, name: str) -> str:
    try:
        return _owner(folder, name).read_text().strip()
    except OSError:  # nobody has said, or who did is just gone
        return "another process"
