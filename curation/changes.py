"""What changed between two versions of a table. It reads; when to ask is for the caller."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from curation.workspace import LEDGER_TABLES, Workspace
from schemas import TABLES

__all__ = ["TableChange", "table_change"]


class TableChange(NamedTuple):
    """Rows by what became of them."""

    added: int
    removed: int
    changed: int
    """rows whose key is in both versions, with other values."""

    def __str__(self) -> str:
        counts = zip(self._fields, self, strict=True)
        return ", ".join(f"{count:,} {name}" for name, count in counts if count) or "no row differs"


def table_change(workspace: Workspace, name: str, *, since: int | None) -> TableChange:
    """What changed in a table since one of its versions; None is the time before it existed.

    Rows of a ledger table are never changed, so that only their keys are read.
    """
    key = TABLES[name].primary_key()
    after = workspace.scan(name)
    before = after.clear() if since is None else workspace.scan(name, version=since)
    added = _count(after.select(key).join(before.select(key), on=key, how="anti"))
    removed = _count(before.select(key).join(after.select(key), on=key, how="anti"))
    if name in LEDGER_TABLES or since is None:
        return TableChange(added, removed, 0)
    values = [c for c in after.collect_schema().names() if c not in key]
    shared = [c for c in values if c in before.collect_schema().names()]
    both = after.join(before, on=key, suffix=" before")
    differs = [pl.col(c).ne_missing(pl.col(f"{c} before")) for c in shared]
    if not differs:
        return TableChange(added, removed, 0)
    return TableChange(added, removed, _count(both.filter(pl.any_horizontal(differs))))


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())
