"""The ledger: which rows of an expensive step are missing, and how computed rows are kept.

A ledger row is keyed by *what* was computed (a content hash) and by *what computed it* (the producer: step
version, model, revision, parameters). Nothing else is in the key, so a row is computed once and found
again by every later run, whatever else changed. Rows that a model could not do are kept in ``failures``
under the same key; they are not tried again until :meth:`Ledger.forget_failures`.

How rows are computed is :mod:`curation.engine`; where tables lie is :mod:`curation.workspace`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from curation.durable import settle
from curation.errors import WorkspaceError
from curation.tables import validated
from curation.workspace import Workspace
from schemas import TABLES

__all__ = ["FORGOTTEN", "Appended", "Ledger", "LedgerKey"]

FORGOTTEN: Final = "forgotten"
"""The rule of a failure that stands for an answer that a person had removed; it is not asked for again."""
_FILES_BEFORE_COMPACTION: Final = 64
_AT_ONCE: Final = 1000


@dataclass(frozen=True)
class LedgerKey:
    """Where a step's rows are.

    Attributes:
        table: the ledger table.
        id_column: the column with the content hash.
        producer_column: the column that says what computed the row.
        producer: its value for this step: everything that determines the row, besides the content.
    """

    table: str
    id_column: str
    producer_column: str
    producer: str


class Appended(NamedTuple):
    """What an append did."""

    added: int
    invalid: int
    """rows that broke the table's schema; they are in ``failures``."""
    twice: int
    """rows that another run had computed in the meantime; they were not added again."""


class Ledger:
    """The ledger tables of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._seen: dict[LedgerKey, int | None] = {}
        self._settled: dict[str, int] = {}

    def missing(self, key: LedgerKey, inputs: pl.DataFrame) -> pl.DataFrame:
        """The inputs that are neither computed nor known to fail: distinct by id, in their order.

        Args:
            inputs: has the column ``key.id_column``.

        Returns:
            Rows of ``inputs``.
        """
        self._seen[key] = self.workspace.version(key.table)
        ids = inputs.select(key.id_column).with_row_index("_row")
        known = self.known_ids(key).rename({"id": key.id_column})
        wanted = ids.unique(subset=key.id_column, keep="first", maintain_order=True)
        missing = wanted.join(known, on=key.id_column, how="anti", maintain_order="left")["_row"]
        # Where all are missing, a million prompts need not be held twice.
        return inputs if len(missing) == inputs.height else inputs[missing]

    def known_ids(self, key: LedgerKey) -> pl.DataFrame:
        """One column ``id``: everything that is computed or is known to fail."""
        computed = (
            self.workspace.scan(key.table)
            .filter(pl.col(key.producer_column) == key.producer)
            .select(id=pl.col(key.id_column))
        )
        failed = (
            self.workspace.scan("failures")
            .filter((pl.col("step") == key.table) & (pl.col("producer") == key.producer))
            .select(id=pl.col("row_id"))
        )
        return pl.concat([computed, failed]).collect()

    def fetch(self, key: LedgerKey, ids: pl.Series) -> pl.DataFrame:
        """The computed rows with these ids, each once; ids that are missing are left out."""
        wanted = ids.unique(maintain_order=True).alias(key.id_column).to_frame().lazy()
        rows = self.workspace.scan(key.table).filter(pl.col(key.producer_column) == key.producer)
        found: pl.DataFrame = wanted.join(rows, on=key.id_column, how="inner", maintain_order="left").collect()
        found = found.unique(subset=key.id_column, keep="first", maintain_order=True)
        # A table that an earlier version wrote lacks the columns that were added since; they can be null.
        schema = TABLES[key.table].create_empty().schema
        added = {name: pl.lit(None, dtype=kind) for name, kind in schema.items() if name not in found.columns}
        return found.with_columns(**added)

    def failures(self, key: LedgerKey, ids: pl.Series) -> pl.DataFrame:
        """The rows of ``failures`` for these ids."""
        rows = self.workspace.scan("failures").filter(
            (pl.col("step") == key.table) & (pl.col("producer") == key.producer)
        )
        return rows.filter(pl.col("row_id").is_in(ids.implode())).collect()

    def append(self, key: LedgerKey, rows: pl.DataFrame, failures: pl.DataFrame) -> Appended:
        """Keep a computed batch, in one commit for the rows and one for the failures.

        Args:
            rows: the table's columns; the producer column is filled in here.
            failures: columns ``row_id, item_id, rule, value, reason``.

        Raises:
            WorkspaceError: when it cannot be written.
        """
        rows = rows.with_columns(pl.lit(key.producer).alias(key.producer_column))
        kept, invalid = validated(key.table, rows, stage=key.table)
        bad = rows.height - kept.height
        kept, twice = self._without_known(key, kept)
        from_schema = invalid.select(
            row_id=pl.col("row_id").str.split(" ").list.first(), rule="rule", value="value", reason="reason"
        ).with_columns(item_id=pl.col("row_id"))
        # Rows first: a failure whose row was lost would say that nothing is missing.
        if not kept.is_empty():
            table_columns = TABLES[key.table].column_names()
            self._seen[key] = self.workspace.append(
                key.table, kept.select(table_columns), partition_by=key.producer_column
            )
        self._append_failures(key, pl.concat([failures, from_schema], how="diagonal_relaxed"))
        return Appended(kept.height, bad, twice)

    def settle(self, key: LedgerKey) -> None:
        """Wait until what was appended would outlive a loss of power. An object store keeps what it has taken.

        Raises:
            WorkspaceError: when the disk cannot say so.
        """
        if self.workspace.is_local:
            for name in (key.table, "failures"):
                # The first time all of it: a run that was killed may have appended what it could not settle.
                self._settled[name] = self._on_disk(name, after=self._settled.get(name, -1))

    def _on_disk(self, name: str, *, after: int) -> int:
        path = self.workspace.table_path(name)
        try:
            return settle(Path(path), after=after)
        except (OSError, ValueError) as error:
            raise WorkspaceError(
                f"cannot make sure that {path} is on the disk: {error}. Check the disk; what was paid for is kept "
                f"in the journal, and a new run goes on from there"
            ) from error

    def compact(self, key: LedgerKey, *, always: bool = False) -> None:
        """Merge small files when there are many."""
        if always or self.workspace.file_count(key.table) > _FILES_BEFORE_COMPACTION:
            before = self.workspace.version(key.table)
            self.workspace.compact(key.table)
            if before is not None and self._seen.get(key) == before:
                # No row is new, unless somebody wrote as well; then the next batch reads every identifier again.
                now = self.workspace.version(key.table)
                self._seen[key] = now if now == before + 1 else before
            if self.workspace.is_local and before is not None:
                # It stands for many files that were on the disk long ago.
                self._on_disk(key.table, after=before)

    def forget_failures(self, key: LedgerKey) -> None:
        """Let the next run try this step's failures again, but for what a person had forgotten."""
        if "'" in key.producer:
            raise WorkspaceError(f"producer {key.producer!r} has a quote in it")
        theirs = f"step = '{key.table}' AND producer = '{key.producer}'"
        self.workspace.delete("failures", f"{theirs} AND rule <> '{FORGOTTEN}'")

    def forget_partial(self, key: LedgerKey, ids: pl.Series) -> None:
        """Forget the rows of these ids that are in the ledger and in ``failures``: a part of them failed.

        Forgetting their failures alone would not bring that part back: it would be tried no more, and nothing
        would say why it is missing.
        """
        if "'" in key.producer:
            return  # forget_failures says what is wrong with it, before anything is lost
        failed = self.failures(key, ids).filter(pl.col("rule") != FORGOTTEN)["row_id"].unique(maintain_order=True)
        partial = self.fetch(key, failed)[key.id_column] if len(failed) else failed
        for some in partial.to_frame().iter_slices(_AT_ONCE):
            named = ", ".join(f"'{one}'" for one in some.to_series())
            theirs = f"{key.producer_column} = '{key.producer}' AND {key.id_column} IN ({named})"
            self.workspace.delete(key.table, theirs)

    def _without_known(self, key: LedgerKey, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """Leave out rows that another run has added since this one asked what was missing."""
        if key in self._seen and self.workspace.version(key.table) == self._seen[key]:
            return rows, 0
        known = self.known_ids(key).rename({"id": key.id_column})
        fresh = rows.join(known, on=key.id_column, how="anti", maintain_order="left")
        return fresh, rows.height - fresh.height

    def _append_failures(self, key: LedgerKey, failures: pl.DataFrame) -> None:
        if failures.is_empty():
            return
        frame = failures.with_columns(step=pl.lit(key.table), producer=pl.lit(key.producer)).select(
            TABLES["failures"].column_names()
        )
        frame = frame.unique(subset=["step", "row_id", "producer", "item_id"], keep="first", maintain_order=True)
        self.workspace.append("failures", validated("failures", frame, stage=key.table).kept)
