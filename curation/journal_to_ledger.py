"""How answers that came one by one get from a step's journal to its ledger, after a kill as well.

What asks for them is :mod:`curation.streaming`; what a journal is, :mod:`curation.journal`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import polars as pl

from curation.engine import failures_frame
from curation.errors import WorkspaceError
from curation.journal import Journal, is_draining
from curation.ledger import Ledger, LedgerKey
from curation.progress import ProgressSink
from curation.workspace import Workspace
from schemas import TABLES

__all__ = ["Recovered", "cost_of", "id_of", "not_in_ledger", "recover", "table_locked", "to_ledger"]

_SECONDS_TO_NOTICE: Final = 3.0
"""By then the sender of a run that was killed has noticed."""


@contextmanager
def table_locked(workspace: Workspace, key: LedgerKey, progress: ProgressSink) -> Iterator[None]:
    """The table's lock; where a killed run's sender still waits for answers, as soon as it has them."""
    started, told = time.monotonic(), False
    while True:
        lock = workspace.lock(key.table)
        try:
            lock.__enter__()
            break
        except WorkspaceError:
            draining = is_draining(workspace, key)
            if not draining and time.monotonic() - started > _SECONDS_TO_NOTICE:
                raise
            if draining and not told:
                told = True
                progress.note(f"{key.table}: waiting for the answers that were under way when a run was killed")
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


class Recovered(NamedTuple):
    """What a killed run left in its journal."""

    kept: int
    damaged: int
    cost: float
    """Of the answers that are kept: whoever added up the ledger before has not seen it."""


def recover(journal: Journal, ledger: Ledger, key: LedgerKey) -> Recovered:
    """Move what a killed run left to the ledger. It may have got there before the journal was cleared."""
    found = journal.read()
    fresh = not_in_ledger(found.entries, ledger, key)
    if found.entries:
        to_ledger(ledger, key, fresh)
    if found.entries or found.damaged:
        journal.clear()
    return Recovered(len(fresh), found.damaged, cost_of(fresh))


def not_in_ledger(entries: list[dict[str, Any]], ledger: Ledger, key: LedgerKey) -> list[dict[str, Any]]:
    """The entries of a journal whose rows the ledger does not know yet."""
    known = set(ledger.known_ids(key)["id"]) if entries else set()
    return [entry for entry in entries if id_of(entry, key) not in known]


def cost_of(entries: Iterable[Mapping[str, Any]]) -> float:
    """What the answers among a journal's entries cost."""
    return sum((entry.get("row") or {}).get("cost") or 0.0 for entry in entries)


def id_of(entry: Mapping[str, Any], key: LedgerKey) -> str:
    """The identifier of the row that an entry of a journal is about."""
    row = entry.get("row")
    return str(row[key.id_column] if row is not None else entry["failure"]["row_id"])


def to_ledger(ledger: Ledger, key: LedgerKey, entries: list[dict[str, Any]]) -> int:
    """Rows and failures, on the disk; how many of the rows broke the table's schema, and are failures."""
    empty = TABLES[key.table].create_empty().drop(key.producer_column)
    rows = pl.DataFrame([e["row"] for e in entries if e.get("row") is not None], schema=empty.schema)
    rows = rows.unique(subset=key.id_column, keep="first", maintain_order=True)
    failures = failures_frame([e["failure"] for e in entries if e.get("failure") is not None])
    invalid = ledger.append(key, rows, failures).invalid
    ledger.settle(key)
    return invalid
