"""A file with what a server replied, for a caller who can lose nothing that was paid for; see ``models.kept``.

Replies stand in a journal under a hash of all that decides them, and no prompt is in it. When the file may go, the
caller says: a command's when its output is written, a run's as each batch comes into the ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from curation.errors import WorkspaceError
from curation.journal import Journal

__all__ = ["REPLIES", "KeptReplies", "replies_among"]

REPLIES: Final = "replies-"
"""How the names of a run's such files begin, among the journals of its workspace."""
_FORGOTTEN: Final = "forgotten"


def replies_among(entries: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The replies in a file's entries, by their keys; those that were let go are left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        for key in entry.get(_FORGOTTEN, ()):
            found.pop(key, None)
        if "key" in entry:
            found[entry["key"]] = entry
    return found


class KeptReplies:
    """The replies in one file, those of whoever broke off among them; see ``Keeper``.

    Attributes:
        found, damaged: replies that were there at the start, and lines that could not be read.
        count: how many are kept by now.
        unused: keys of those that were there and nobody has asked for yet.
        unanswered: keys that were asked for and for which no reply has come.

    Raises:
        WorkspaceError: when somebody else keeps replies in this file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = self.damaged = self.count = self._bytes_found = 0
        self.unused, self.unanswered = set[str](), set[str]()
        self._journal: Journal | None = None
        self._open_files = ExitStack()
        self._adding = threading.Lock()
        self._known: dict[str, Mapping[str, Any]] = {}
        self._places: dict[str, int] = {}
        if path.is_file():
            journal = self._open()
            kept = journal.read()
            self._known = replies_among(kept.entries)
            self.found = self.count = len(self._known)
            self.damaged = kept.damaged
            self.unused = set(self._known)
            self._bytes_found = journal.size

    @property
    def goes_on(self) -> bool:
        """Whether there is something to ask again, and something that was paid for."""
        return bool(self.unanswered and self.count)

    def find(self, key: str) -> Mapping[str, Any] | None:
        """See ``Keeper``. The file is ours before anything is asked."""
        with self._adding:
            journal = self._open()
            self.unused.discard(key)
            place = self._places.get(key)
            if place is None and key not in self._known:
                self.unanswered.add(key)
        return self._known.get(key) if place is None else journal.entry_at(place)

    def add(self, key: str, answer: Mapping[str, Any]) -> None:
        """See ``Keeper``."""
        with self._adding:
            journal = self._open()
            place = journal.size
            journal.append({"key": key, **answer})
            self._places[key] = place
            self.unanswered.discard(key)
            self.count += 1

    def forget(self) -> None:
        """Let go what was asked for: it is somewhere else by now. What nobody has asked for yet stays."""
        if self.count == len(self.unused):
            return
        journal, self._places = self._open(), {}
        journal.clear(after=self._bytes_found if self.unused else 0)
        used = [key for key in self._known if key not in self.unused]
        self._known = {key: self._known[key] for key in self._known if key in self.unused}
        if used and self.unused:
            journal.append({_FORGOTTEN: used})
        self._bytes_found = journal.size
        self.found = self.count = len(self.unused)

    def close(self) -> None:
        """Close the file, which stays, unless nothing is in it."""
        if self._journal is not None and not self._journal.size:
            self.path.unlink(missing_ok=True)
        self._open_files.close()
        self._journal = None

    def remove(self) -> None:
        """Take the file away. Until it is gone it stays ours, so that nobody else writes to what goes."""
        self.path.unlink(missing_ok=True)
        self._open_files.close()
        self._journal = None

    def _open(self) -> Journal:
        while self._journal is None:
            journal = self._open_files.enter_context(Journal(self.path))
            if not journal.hold():
                self._open_files.close()
                raise WorkspaceError(
                    f"another process keeps replies of a server in {self.path}: wait until it is done, or write to "
                    f"another place"
                )
            if journal.in_place:
                self._journal = journal
            else:  # Who held it took it away between our two steps: what we wrote to it would go with it.
                self._open_files.close()
        return self._journal
