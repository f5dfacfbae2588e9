"""The journal: answers that arrive one by one, each on disk before the next is looked at.

A Delta commit for every answer would be slow, and an answer that waits for its batch can be lost. So each goes
to a local file first, one line in one write, and lines move to the ledger in groups (``curation.streaming``).
A start reads the lines that a killed run left. A line is ``<CRC-32> <JSON>``: the last one may be torn, and is
then cut off; one that is damaged in the middle is left out and counted.

A write survives the death of the process at once, and of the machine from the next ``fsync`` on: one is made within
a second, and when a group moves on. A group is let go here only once the disk has it in the ledger
(:mod:`curation.durable`).
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

from curation.durable import settle_folder
from curation.errors import WorkspaceError
from curation.ledger import LedgerKey
from curation.processes import is_alive
from curation.text import content_hash
from curation.workspace import Workspace

__all__ = [
    "FSYNC_SECONDS",
    "PAID",
    "Journal",
    "JournalEntries",
    "draining_marker",
    "entries_in",
    "entries_of",
    "is_draining",
    "journal_folder",
    "journal_path",
]

FSYNC_SECONDS: Final = 1.0
PAID: Final = "paid-"
"""How the names of files begin that say what judges were paid, beside the journals of answers."""
_READ_AT_ONCE: Final = 16_384


class JournalEntries(NamedTuple):
    """What a journal holds."""

    entries: list[dict[str, Any]]
    damaged: int
    """lines in the middle that are not what was written."""


def entries_in(data: bytes) -> JournalEntries:
    """All whole entries of a journal's bytes, in order; a torn end is left out."""
    entries, damaged = [], 0
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        checksum, _, text = line.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(text):
            entries.append(json.loads(text))
        else:
            damaged += 1
    return JournalEntries(entries, damaged)


def entries_of(path: Path) -> list[dict[str, Any]]:
    """The whole entries of a journal's file, which is left as it is; none where there is no file."""
    return entries_in(path.read_bytes()).entries if path.is_file() else []


def journal_path(workspace: Workspace, key: LedgerKey) -> Path:
    """Where the journal of a step lies: in the workspace; on this machine's disk for one in an object store."""
    return journal_folder(workspace) / f"{key.table}-{content_hash(key.producer)[:16]}.jsonl"


def journal_folder(workspace: Workspace) -> Path:
    """Where the journals of a workspace lie; see :func:`journal_path`."""
    if workspace.is_local:
        return Path(workspace.path("journal"))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "preference-curation" / "journal" / content_hash(workspace.url)[:16]


def draining_marker(workspace: Workspace, key: LedgerKey, process: int) -> Path:
    """The file that says that a process only waits for the answers that were under way when its run was killed."""
    return journal_path(workspace, key).with_suffix(f".draining-{process}")


def is_draining(workspace: Workspace, key: LedgerKey) -> bool:
    """Whether such a process is alive."""
    path = journal_path(workspace, key)
    found = [int(p.suffix.rpartition("-")[2]) for p in path.parent.glob(f"{path.stem}.draining-*")]
    return any(is_alive(process) for process in found)


class Journal:
    """An append-only file. Only one process writes to it: the caller holds the table's lock."""

    def __init__(self, path: Path, *, fsync_seconds: float = FSYNC_SECONDS) -> None:
        self.path = path
        self._fsync_seconds = fsync_seconds
        self._synced = time.monotonic()
        self._unsynced, self._ends = False, threading.Event()
        self._syncing: threading.Thread | None = None
        self._looks = threading.Lock()
        self._failed: OSError | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not path.exists()
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            if fresh:
                settle_folder(path.parent)
        except OSError as error:
            raise self._cannot("open", error) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        if self._syncing is not None:
            self._syncing.join()
        os.close(self._file)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Keep one entry.

        Raises:
            WorkspaceError: when it cannot be written whole.
        """
        text = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            written = os.write(self._file, line)
            if written != len(line):
                # Else the next entry, once there is room again, would stand on a torn line and be lost with it.
                os.ftruncate(self._file, self.size - written)
                raise OSError("only a part of a line was written")
            if self._failed is not None:
                raise self._failed
            if time.monotonic() - self._synced >= self._fsync_seconds:
                self.sync()
            else:
                self._sync_later()
        except OSError as error:
            raise self._cannot("write", error) from error

    def sync(self) -> None:
        """Let everything survive the death of the machine."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def _sync_later(self) -> None:
        """See to it that what was written is synced, however long the next answer is in coming."""
        with self._looks:
            self._unsynced = True
            if self._syncing is None:
                self._syncing = threading.Thread(target=self._keep_synced, name="journal", daemon=True)
                self._syncing.start()

    def _keep_synced(self) -> None:
        while not self._ends.wait(self._fsync_seconds):
            with self._looks:
                if not self._unsynced:
                    self._syncing = None
                    return
                self._unsynced = False
            try:
                self.sync()
            except OSError as error:
                self._failed = error

    def read(self) -> JournalEntries:
        """All whole entries, in order; a torn end is cut off."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
        return entries_in(data)

    @property
    def size(self) -> int:
        """In bytes: where the next entry will stand."""
        return os.fstat(self._file).st_size

    def entry_at(self, place: int) -> dict[str, Any]:
        """The entry that was appended when the journal had this size.

        Raises:
            WorkspaceError: when it is there no more, because something else writes to the file.
        """
        line = b""
        while b"\n" not in line:
            more = os.pread(self._file, _READ_AT_ONCE, place + len(line))
            if not more:
                break
            line += more
        entries = entries_in(line[: line.find(b"\n") + 1]).entries
        if not entries:
            raise self._cannot("read", OSError("what was kept is there no more, or is not what was written"))
        return entries[0]

    @property
    def in_place(self) -> bool:
        """Whether the file is there under its name: whoever held it before may have taken it away."""
        return os.fstat(self._file).st_nlink > 0

    def hold(self) -> bool:
        """Keep other processes from holding this file, until it is closed; False where one does.

        A file system that has no locks lets everybody hold it.
        """
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def clear(self, *, after: int = 0) -> None:
        """Forget what has moved to the ledger: all, or what stands behind so many bytes."""
        os.ftruncate(self._file, after)
        self.sync()

    def _cannot(self, verb: str, error: OSError) -> WorkspaceError:
        return WorkspaceError(
            f"cannot {verb} {self.path}: {error}. Check that the disk has room and that you may write there; "
            f"answers that were kept before are whole, and a new run goes on from them"
        )
