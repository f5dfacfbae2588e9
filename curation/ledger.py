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
_NONE: Final = pl.Series([], dtype=pl.String)


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

    def has_rows(self, key: LedgerKey) -> bool:
        """Whether anything is computed."""
        rows = self.workspace.scan(key.table).filter(pl.col(key.producer_column) == key.producer)
        return not rows.select(key.id_column).head(1).collect().is_empty()

    def known_ids(self, key: LedgerKey) -> pl.DataFrame:
        """One column ``id``: everything that is computed or is known to fail."""
        computed = (
            self.workspace.scan(key.table)
            .filter(pl.col(key.producer_column) == key.producer)
            .select(id=pl.col(key.id_column))
        )
        failed = self._failures(key).select(id=pl.col("row_id"))
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
        return self._failures(key).filter(pl.col("row_id").is_in(ids.implode())).collect()

    def _failures(self, key: LedgerKey) -> pl.LazyFrame:
        return self.workspace.scan("failures").filter(
            (pl.col("step") == key.table) & (pl.col("producer") == key.producer)
        )

    def append(
        self,
        key: LedgerKey,
        rows: pl.DataFrame,
        failures: pl.DataFrame,
        *,
        replaced: pl.Series = _NONE,
    ) -> Appended:
        """Keep a computed batch, in one commit for the rows and one for the failures.

        Args:
            rows: the table's columns; the producer column is filled in here.
            failures: columns ``row_id, item_id, rule, value, reason``.
            replaced: ids whose row and failures give way to those of this batch. What has no new row keeps its old.

        Raises:
            WorkspaceError: when it cannot be written.
        """
        rows = rows.with_columns(pl.lit(key.producer).alias(key.producer_column))
        kept, invalid = validated(key.table, rows, stage=key.table)
        bad = rows.height - kept.height
        is_new = ~pl.col(key.id_column).is_in(replaced.implode())
        again, kept = kept.filter(~is_new), kept.filter(is_new)
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
        failures = pl.concat([failures, from_schema], how="diagonal_relaxed")
        is_old = pl.col("row_id").is_in(replaced.implode())
        self._replace(key, again, failures.filter(is_old))
        self._append_failures(key, failures.filter(~is_old))
        return Appended(kept.height + again.height, bad, twice)

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
        """Let the next run try this step's failures again, but for what a person had forgotten.

        What failed in part keeps its failure until it is replaced: it would be tried no more, and nothing would say
        why that part is missing.
        """
        if "'" in key.producer:
            raise WorkspaceError(f"producer {key.producer!r} has a quote in it")
        theirs = f"step = '{key.table}' AND producer = '{key.producer}' AND rule <> '{FORGOTTEN}'"
        failures = self._failures(key).filter(pl.col("rule") != FORGOTTEN).collect()
        if failures.is_empty():
            return
        partial = self.fetch(key, failures["row_id"])[key.id_column]
        self.workspace.replace("failures", failures.filter(pl.col("row_id").is_in(partial.implode())), theirs)

    def partial(self, key: LedgerKey, ids: pl.Series) -> pl.DataFrame:
        """The rows of these ids of which a part failed: they are in the ledger and in ``failures``."""
        failed = self.failures(key, ids).filter(pl.col("rule") != FORGOTTEN)["row_id"]
        return self.fetch(key, failed)

    def _replace(self, key: LedgerKey, rows: pl.DataFrame, failures: pl.DataFrame) -> None:
        """Rows first, as in ``append``: until its failures have given way, a row is tried again."""
        for some in rows.select(TABLES[key.table].column_names()).iter_slices(_AT_ONCE):
            theirs = (
                f"{key.producer_column} = '{key.producer}' AND {_is_one_of(key.id_column, some[key.id_column])}"
            )
            self.workspace.replace(key.table, some, theirs)
        ids = pl.concat([rows[key.id_column].alias("row_id"), failures["row_id"]]).unique(maintain_order=True)
        for named in ids.to_frame().iter_slices(_AT_ONCE):
            own = failures.join(named, on="row_id", how="semi", maintain_order="left")
            theirs = (
                f"step = '{key.table}' AND producer = '{key.producer}' AND {_is_one_of('row_id', named['row_id'])}"
            )
            self.workspace.replace("failures", self._as_failures(key, own), theirs)

    def _without_known(self, key: LedgerKey, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """Leave out rows that another run has added since this one asked what was missing."""
        if key in self._seen and self.workspace.version(key.table) == self._seen[key]:
            return rows, 0
        known = self.known_ids(key).rename({"id": key.id_column})
        fresh = rows.join(known, on=key.id_column, how="anti", maintain_order="left")
        return fresh, rows.height - fresh.height

    def _append_failures(self, key: LedgerKey, failures: pl.DataFrame) -> None:
        if not failures.is_empty():
            self.workspace.append("failures", self._as_failures(key, failures))

    @staticmethod
    def _as_failures(key: LedgerKey, failures: pl.DataFrame) -> pl.DataFrame:
        frame = failures.with_columns(step=pl.lit(key.table), producer=pl.lit(key.producer)).select(
            TABLES["failures"].column_names()
        )
        frame = frame.unique(subset=["step", "row_id", "producer", "item_id"], keep="first", maintain_order=True)
        return validated("failures", frame, stage=key.table).kept


def _is_one_of(column: str, ids: pl.Series) -> str:
    """SQL."""
    return f"{column} IN ({', '.join(repr(str(one)) for one in ids)})"
