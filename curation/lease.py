"""Leases: who holds a workspace in an object store, where there are no locks. What is held is not known here.

A lease is a chain of small objects, ``<name>.0001.lease`` and on. The last one says who holds it and is written
anew every few seconds; the next one is made with a conditional put, so that only one of two who want it gets it.
A holder that is silent for a minute is gone, and one on this machine whose process has ended is, too.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from curation.errors import WorkspaceError
from curation.processes import is_alive

__all__ = ["HEARTBEAT_SECONDS", "SILENT_SECONDS", "Held", "Lease", "lease_holder", "lease_names", "leased"]

HEARTBEAT_SECONDS: Final = 15.0
SILENT_SECONDS: Final = 60.0
_KEPT: Final = 3
"""Older links of the chain that stay; the last one always does, for the next is counted from it."""


class Lease(NamedTuple):
    """The last link of a chain."""

    number: int
    owner: str
    machine: str
    process: int
    beat: float
    """Seconds since 1970 by the holder's clock."""
    beats: int
    released: bool

    @property
    def text(self) -> str:
        return f"process {self.process} on {self.machine}"


class Held:
    """A lease that is ours until somebody takes it.

    Args:
        filesystem: an fsspec file system with exclusive creation (``pipe_file(mode="create")``).
        folder: where the chain lies.
        name: of the lease.
        mine: the link that says so.
        errors: what the file system raises when the store cannot be reached; botocore's are no ``OSError``.
    """

    def __init__(
        self, filesystem: Any, folder: str, name: str, mine: Lease, errors: tuple[type[Exception], ...]
    ) -> None:
        self.lost = threading.Event()
        self._filesystem, self._folder, self._name = filesystem, folder, name
        self._mine, self._errors = mine, errors
        self._said = time.monotonic()
        self._one_at_a_time = threading.Lock()

    def is_lost(self) -> bool:
        """Whether somebody else may hold it by now: to be asked before each write.

        The thread that says that we live may have been held up, as on a laptop that slept; so a lease that was
        silent for half of its time is looked at here.
        """
        if time.monotonic() - self._said > SILENT_SECONDS / 2:
            self.beat()
        return self.lost.is_set() or time.monotonic() - self._said > SILENT_SECONDS

    def keep(self, done: threading.Event) -> None:
        """Say from time to time that the holder is there, until it is done or somebody else took the lease."""
        while not done.wait(HEARTBEAT_SECONDS) and not self.lost.is_set():
            self.beat()

    def beat(self) -> None:
        """Say once that the holder is there. A store that cannot be reached is waited out, but not for long."""
        with self._one_at_a_time:
            try:
                if _exists(self._filesystem, _path(self._folder, self._name, self._mine.number + 1)):
                    self.lost.set()
                    return
                self._mine = self._mine._replace(beat=time.time(), beats=self._mine.beats + 1)
                self._write(self._mine)
                self._said = time.monotonic()
            except self._errors:
                if time.monotonic() - self._said > SILENT_SECONDS:
                    self.lost.set()

    def release(self) -> None:
        """Let go; where the store cannot be reached, the lease ends by its silence."""
        if not self.lost.is_set():
            with suppress(*self._errors):
                self._write(self._mine._replace(released=True))

    def _write(self, lease: Lease) -> None:
        self._filesystem.pipe_file(_path(self._folder, self._name, lease.number), _bytes(lease))


@contextmanager
def leased(
    filesystem: Any, folder: str, name: str, *, url: str, errors: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[Held]:
    """Hold a lease; it is kept alive by a thread.

    Args:
        filesystem: an fsspec file system with exclusive creation (``pipe_file(mode="create")``).
        folder: where the chain lies.
        name: of the lease.
        url: of what is held, for messages.
        errors: what the file system raises when the store cannot be reached; botocore's are no ``OSError``.

    Raises:
        WorkspaceError: when somebody else holds it, or takes it.
    """
    last = _last(filesystem, folder, name)
    if last is not None and not _is_gone(filesystem, folder, name, last):
        raise WorkspaceError(
            f"{url} is in use by {last.text}: wait until it is done, or use another --workspace. One that was "
            f"killed is gone {SILENT_SECONDS:.0f} seconds after its last sign of life"
        )
    number = 1 if last is None else last.number + 1
    mine = Lease(number, uuid.uuid4().hex, platform.node(), os.getpid(), time.time(), 0, False)
    try:
        filesystem.pipe_file(_path(folder, name, number), _bytes(mine), mode="create")
    except (FileExistsError, OSError) as error:
        if not _exists(filesystem, _path(folder, name, number)):
            raise
        raise WorkspaceError(
            f"{url} is in use by a process that began at the same moment: try again later"
        ) from error
    _forget_older(filesystem, folder, name, number)
    held, done = Held(filesystem, folder, name, mine, errors), threading.Event()
    beating = threading.Thread(target=held.keep, args=(done,), name=f"lease-{name}", daemon=True)
    beating.start()
    try:
        yield held
    finally:
        done.set()
        beating.join()
        held.release()


def lease_holder(filesystem: Any, folder: str, name: str) -> Lease | None:
    """Who holds a lease, None where nobody does."""
    last = _last(filesystem, folder, name)
    return None if last is None or last.released else last


def lease_names(filesystem: Any, folder: str) -> list[str]:
    """The names of all chains in a folder."""
    return sorted({name for name, _ in _links(filesystem, folder)})


def _is_gone(filesystem: Any, folder: str, name: str, last: Lease) -> bool:
    """Whether the last holder has let go, has ended, or gives no sign of life."""
    if last.released:
        return True
    if last.machine == platform.node():
        return not is_alive(last.process)
    if time.time() - last.beat < SILENT_SECONDS:
        return False
    # Clocks differ between machines: one that lives is seen to say so within two beats.
    time.sleep(2 * HEARTBEAT_SECONDS)
    now = _last(filesystem, folder, name)
    return now is not None and (now.number, now.beats) == (last.number, last.beats)


def _last(filesystem: Any, folder: str, name: str) -> Lease | None:
    numbers = _numbers(filesystem, folder, name)
    if not numbers:
        return None
    filesystem.invalidate_cache()
    found = json.loads(filesystem.cat_file(_path(folder, name, numbers[-1])))
    return Lease(**found)


def _numbers(filesystem: Any, folder: str, name: str) -> list[int]:
    return sorted(number for chain, number in _links(filesystem, folder) if chain == name)


def _links(filesystem: Any, folder: str) -> list[tuple[str, int]]:
    """The links of all chains in a folder: name and number."""
    filesystem.invalidate_cache()
    try:
        entries = filesystem.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    parts = [entry.rstrip("/").rpartition("/")[2].split(".") for entry in entries]
    return [(part[0], int(part[1])) for part in parts if len(part) == 3 and part[2] == "lease"]


def _forget_older(filesystem: Any, folder: str, name: str, number: int) -> None:
    for older in _numbers(filesystem, folder, name):
        if older < number - _KEPT:
            with suppress(OSError):
                filesystem.rm_file(_path(folder, name, older))


def _exists(filesystem: Any, path: str) -> bool:
    filesystem.invalidate_cache()
    return bool(filesystem.exists(path))


def _path(folder: str, name: str, number: int) -> str:
    return f"{folder}/{name}.{number:06d}.lease"


def _bytes(lease: Lease) -> bytes:
    return json.dumps(lease._asdict()).encode()
