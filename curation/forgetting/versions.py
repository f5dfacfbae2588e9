"""The rows of a workspace's tables, old versions included, as their files hold them. Reading only."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from io import BytesIO
from typing import Final

import polars as pl

from curation.stored import read_file, stored_files
from curation.workspace import LEDGER_TABLES, Workspace
from schemas import TABLES

__all__ = ["Versions"]

_IDS: Final[dict[str, tuple[str, ...]]] = {
    "inputs": ("input_id", "source", "kind", "prompt_id", "candidate_ids"),
    "prompts": ("prompt_id",),
    "mutations": ("prompt_id", "parent_id"),
    "candidates": ("candidate_id", "prompt_id", "parent_id"),
    "constructed": ("candidate_id", "prompt_id", "parent_id"),
    "generations": ("request_id", "prompt_id"),
    "rewrites": ("prompt_id", "for_prompt"),
    "pairs": ("pair_id", "prompt_id", "chosen_id", "rejected_id"),
    "policy_stats": ("stats_id", "prompt_id", "candidate_ids"),
    "rejects": ("table", "row_id"),
}


class Versions:
    """The tables of a workspace and of its trial.

    A table is read from its files and not through its log: so rows are found that no version names any more.
    """

    def __init__(self, places: Sequence[Workspace]) -> None:
        self.places = list(places)
        self.workspace = self.places[0]
        self._ids: dict[str, pl.DataFrame] = {}

    def ids(self, table: str, *, current: bool = False) -> pl.DataFrame:
        """The identifying columns of every row that any version holds, or the present one does."""
        columns = _IDS[table]
        if current:
            frames = [w.scan(table).select(columns).collect() for w in self._places_of(table)]
            return pl.concat(frames)
        if table not in self._ids:
            found = [self._empty(table, columns), *self._parts(table, columns)]
            self._ids[table] = pl.concat(found).unique(maintain_order=True)
        return self._ids[table]

    def rows(
        self, table: str, column: str, keys: Collection[str], columns: Sequence[str], *, current: bool = False
    ) -> pl.DataFrame:
        """Those columns of the rows whose ``column`` is among the keys; of every version, or the present one."""
        wanted = pl.col(column).is_in(list(keys))
        if not keys:
            return self._empty(table, columns)
        if current:
            frames = [w.scan(table).filter(wanted).select(columns).collect() for w in self._places_of(table)]
            return pl.concat(frames)
        parts = (part.filter(wanted).select(columns) for part in self._parts(table, (*columns, column)))
        return pl.concat([self._empty(table, columns), *parts]).unique(maintain_order=True)

    def texts(self, table: str, column: str) -> pl.Series:
        """Every distinct value of a column, in any version."""
        parts = [part[column] for part in self._parts(table, (column,))]
        return pl.concat([self._empty(table, (column,))[column], *parts]).unique(maintain_order=True)

    def _places_of(self, table: str) -> list[Workspace]:
        return self.places[:1] if table in LEDGER_TABLES else self.places

    def _empty(self, table: str, columns: Sequence[str]) -> pl.DataFrame:
        return pl.DataFrame(TABLES[table].create_empty()).select(columns)

    def _parts(self, table: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        schema = TABLES[table].create_empty().schema
        for place in self._places_of(table):
            folder = place.table_path(table)[len(place.url) + 1 :]
            for path in stored_files(place, folder):
                if not path.endswith(".parquet") or "/_delta_log/" in path:
                    continue
                try:
                    data = BytesIO(read_file(place, path))
                    there = pl.read_parquet_schema(data)
                    wanted = list(dict.fromkeys(columns))
                    data.seek(0)
                    found = pl.read_parquet(data, columns=[c for c in wanted if c in there])
                except (OSError, pl.exceptions.PolarsError):
                    continue  # what a killed run left half-written belongs to no version
                absent = {c: pl.lit(None, dtype=schema[c]) for c in wanted if c not in there}
                yield found.with_columns(**absent).select(wanted).cast({c: schema[c] for c in wanted})
