"""What changed between two versions of a table, of a stage's rejects and of the gates.

It reads; when to ask is for the caller.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from curation.workspace import LEDGER_TABLES, Workspace
from schemas import TABLES

__all__ = ["GateChange", "RuleCount", "TableChange", "gate_changes", "rejects_by_rule", "table_change"]


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


class RuleCount(NamedTuple):
    """Rows that a rule dropped: the time before, and now."""

    rule: str
    before: int
    now: int


def rejects_by_rule(workspace: Workspace, stage: str, *, since: int | None) -> list[RuleCount]:
    """What each rule of a stage dropped, at a version of table ``rejects`` and now, by name.

    Args:
        since: the version before; None is the time before the table existed.
    """
    now = workspace.scan("rejects")
    before = now.clear() if since is None else workspace.scan("rejects", version=since)
    parts = [
        rows.filter(pl.col("stage") == stage).select("rule", pl.lit(which).alias("now"))
        for rows, which in ((before, False), (now, True))
    ]
    counts = pl.concat(parts).group_by("rule").agg((~pl.col("now")).sum().alias("before"), pl.col("now").sum())
    return [RuleCount(*row) for row in counts.sort("rule").collect().iter_rows()]


class GateChange(NamedTuple):
    """A gate of a dataset whose value, threshold or verdict is another one than the time before."""

    dataset: str
    gate: str
    value_before: float | None
    value: float | None
    threshold_before: float | None
    threshold: float
    passed_before: bool | None
    passed: bool


def gate_changes(workspace: Workspace, *, since: int | None) -> list[GateChange]:
    """The gates that say something else than at a version of table ``gates``; the failed ones first."""
    if since is None:
        return []
    measured = ("value", "threshold", "passed")
    key = TABLES["gates"].primary_key()
    both = workspace.scan("gates").join(
        workspace.scan("gates", version=since), on=key, how="left", suffix=" before", maintain_order="left"
    )
    differs = pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c} before")) for c in measured)
    pairs = [name for c in measured for name in (f"{c} before", c)]
    rows = both.filter(differs).sort("passed", maintain_order=True).select("dataset", "name", *pairs)
    return [GateChange(*row) for row in rows.collect().iter_rows()]


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())
