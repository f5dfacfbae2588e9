"""A file with what a server replied, for a caller who can lose nothing that was paid for; see ``models.kept``.

Replies stand in a journal under a hash of all that decides them, and no prompt is in it. When the file may go, the
caller says: a command's when its output is written, a run's as each batch comes into the ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from curation.journal import Journal

__all__ = ["REPLIES", "KeptReplies"]

REPLIES: Final = "replies-"
"""How the names of a run's such files begin, among the journals of its workspace."""


class KeptReplies:
    """The replies in one file, those of whoever broke off among them; see ``Keeper``.

    Attributes:
        found, damaged: replies that were there at the start, and lines that could not be read.
        count: how many are kept by now.
        unused: keys of those that were there and nobody has asked for yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = self.damaged = self.count = self._bytes_found = 0
        self.unused = set[str]()
        self._journal: Journal | None = None
        self._open_files = ExitStack()
        self._adding = threading.Lock()
        self._known: dict[str, Mapping[str, Any]] = {}
        if path.is_file():
            kept = self._open().read()
            self._known = {entry["key"]: entry for entry in kept.entries}
            self.found = self.count = len(self._known)
            self.damaged = kept.damaged
            self.unused = set(self._known)
            self._bytes_found = path.stat().st_size

    def find(self, key: str) -> Mapping[str, Any] | None:
        """See ``Keeper``."""
        self.unused.discard(key)
        return self._known.get(key)

    def add(self, key: str, answer: Mapping[str, Any]) -> None:
        """See ``Keeper``."""
        with self._adding:
            self._open().append({"key": key, **answer})
            self.count += 1

    def forget(self) -> None:
        """Let go what was asked for: it is somewhere else by now. What was there stays until all of it is found."""
        if not self.unused:
            self._known, self.found, self._bytes_found = {}, 0, 0
        if self.count > self.found:
            self._open().clear(after=self._bytes_found)
        self.count = self.found

    def close(self) -> None:
        """Close the file, which stays."""
        self._open_files.close()
        self._journal = None

    def remove(self) -> None:
        """Close the file, and take it away."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _open(self) -> Journal:
        if self._journal is None:
            self._journal = self._open_files.enter_context(Journal(self.path))
        return self._journal
