"""What a server replied to a command on a file, kept until the command is done. In runs the ledger keeps it.

A command writes its output whole or not at all. Its replies are paid for, so they lie beside the output while it
works (``OUT.replies``), and the same command goes on from them when it broke off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer

from curation.journal import Journal
from curation.models.kept import keeping

__all__ = ["kept_replies"]


@contextmanager
def kept_replies(output: Path) -> Iterator[None]:
    """Keeps what servers reply in this block, and takes it away when the block ends well.

    Raises:
        WorkspaceError: when a reply cannot be kept.
    """
    kept = _Kept(output.with_name(f"{output.name}.replies"))
    try:
        with keeping(kept):
            yield
    except BaseException:
        kept.close()
        if kept.count:
            typer.echo(
                f"{kept.count:,} replies of the server are kept in {kept.path}: the same command goes on from them",
                err=True,
            )
        raise
    kept.close()
    if kept.unused:
        typer.echo(
            f"{len(kept.unused):,} replies in {kept.path} are to other requests, of another model or file: "
            f"remove it when nobody needs them",
            err=True,
        )
    else:
        kept.path.unlink(missing_ok=True)


class _Kept:
    """The replies beside one output, those of a command that broke off among them; see ``Keeper``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.unused = set[str]()
        self._journal: Journal | None = None
        self._open_files = ExitStack()
        self._adding = threading.Lock()
        self._known: dict[str, Mapping[str, Any]] = {}
        if path.is_file():
            found = self._open().read()
            self._known = {entry["key"]: entry for entry in found.entries}
            self.count = len(self._known)
            self.unused = set(self._known)
            lost = f"; {found.damaged:,} lines are damaged: those are asked for again" if found.damaged else ""
            typer.echo(
                f"{self.count:,} replies are in {path} since a command broke off, and are not paid again{lost}",
                err=True,
            )

    def find(self, key: str) -> Mapping[str, Any] | None:
        self.unused.discard(key)
        return self._known.get(key)

    def add(self, key: str, answer: Mapping[str, Any]) -> None:
        with self._adding:
            self._open().append({"key": key, **answer})
            self.count += 1

    def close(self) -> None:
        self._open_files.close()

    def _open(self) -> Journal:
        if self._journal is None:
            self._journal = self._open_files.enter_context(Journal(self.path))
        return self._journal
