"""Delta tables that stay open between writes, so that a ledger does not read its log anew for each batch.

Which tables there are, and where, is in :mod:`curation.workspace`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["KeptTables"]


class _Handle(NamedTuple):
    """An open table, and the file of the last commit that it knows."""

    table: DeltaTable
    last_commit: tuple[int, int] | None


class KeptTables:
    """Handles of tables on a local disk. A handle changes under whoever holds it: what scans opens its own."""

    def __init__(self) -> None:
        self._handles: dict[str, _Handle] = {}

    def __reduce__(self) -> tuple[type[KeptTables], tuple[()]]:
        """A copy for another process keeps none."""
        return KeptTables, ()

    def take(self, path: str) -> DeltaTable | None:
        """A table that was kept, brought up to date; None where it is not the same any more, or none was kept."""
        from deltalake.exceptions import DeltaError

        kept = self._handles.pop(path, None)
        if kept is None or kept.last_commit is None or kept.last_commit != _last_commit(path, kept.table):
            return None
        try:
            kept.table.update_incremental()
        except (DeltaError, OSError, ValueError):
            # A log that changed under us: what there is to say of it, opening it says.
            return None
        self.keep(path, kept.table)
        return kept.table

    def keep(self, path: str, table: DeltaTable) -> None:
        """Keep an open table for the next write."""
        self._handles[path] = _Handle(table, _last_commit(path, table))


def _last_commit(path: str, table: DeltaTable) -> tuple[int, int] | None:
    """What tells the last commit's file from one of the same name in a folder that was made anew."""
    if "://" in path:
        return None
    try:
        found = Path(path, "_delta_log", f"{table.version():020}.json").stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
