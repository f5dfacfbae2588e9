"""A workspace: the folder, local or in an object store, that holds tables, datasets and the report.

Every path and every Delta call goes through here. What the tables mean is in ``schemas``; which rows of
a ledger table are missing is in ``curation.ledger``.

    <workspace>/workspace.json      the format's version
    <workspace>/tables/<name>/      one Delta table for each name in ``schemas.TABLES``
    <workspace>/datasets/<name>/    what is published, in the Hub's layout
    <workspace>/indexes/<name>/     search indexes, on a local disk only
    <workspace>/report.html
    <workspace>/trial/              the same again for trials, but for the ledger, which is shared
    <workspace>/locks/              on a local disk only
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from curation.errors import WorkspaceError
from curation.kept_tables import KeptTables
from curation.workspace_files import FORMAT_VERSION, WorkspaceFiles
from schemas import TABLES

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["FORGETTING", "FORMAT_VERSION", "LEDGER_TABLES", "Workspace"]

LEDGER_TABLES: Final = frozenset({
    "generations", "embeddings", "rewards", "requests", "refusals", "policy_stats", "failures", "rewrites",
    "forgotten", "judgements",
})  # fmt: skip
"""Tables that only grow, and that every run shares."""
FORGETTING: Final = "forgetting.json"
"""There while `curation forget` is under way: what is to go."""


class Workspace(WorkspaceFiles):
    """A workspace at a path or an fsspec URL (``s3://bucket/folder``).

    Args:
        url: where it is; a local one is created when it does not exist.
        storage_options: for object stores, as delta-rs and fsspec name them; credentials that are
            left out come from the environment.
        trial: keep tables, datasets and report of a trial apart; only the ledger is shared.
        create: make a workspace where there is none.

    Raises:
        InputError: when there is none, and none is to be made.
        WorkspaceError: when it cannot be created or read, or a newer version of this package wrote it.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, str] | None = None,
        trial: bool = False,
        create: bool = True,
    ) -> None:
        self._results = ("trial",) if trial else ()
        self._versions_read: dict[str, int] = {}
        self._versions_written: dict[str, int] = {}
        self._kept = KeptTables()
        super().__init__(url, storage_options=storage_options, create=create)

    # ---- tables ------------------------------------------------------------------------------------------

    def table_path(self, name: str) -> str:
        """Where a table lies."""
        if name not in TABLES:
            raise WorkspaceError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
        return self.path(*(() if name in LEDGER_TABLES else self._results), "tables", name)

    def dataset_path(self, name: str) -> str:
        """Where a published dataset lies."""
        return self.path(*self._results, "datasets", name)

    def index_path(self, name: str) -> str:
        """Where a search index lies. It is made from the ledger and may be deleted at any time."""
        return self.path(*self._results, "indexes", name)

    @property
    def report_parts(self) -> tuple[str, ...]:
        """Where the report lies inside the workspace."""
        return (*self._results, "report.html")

    @property
    def report_path(self) -> str:
        """Where the report lies."""
        return self.path(*self.report_parts)

    def version(self, name: str) -> int | None:
        """The table's current Delta version, None while it has none."""
        table = self._current(name)
        return None if table is None else table.version()

    def scan(self, name: str, *, version: int | None = None) -> pl.LazyFrame:
        """The rows of a table; no rows, with the schema's columns, while it does not exist.

        Args:
            name: of the table.
            version: the rows as they were at this version; the current ones by default.
        """
        table = self._open(name, version=version)
        if table is None:
            return TABLES[name].create_empty().lazy()
        if version is None:
            self._versions_read[name] = table.version()
        return self._rows_of(table)

    def read(self, name: str) -> pl.DataFrame:
        """:meth:`scan`, collected."""
        frame: pl.DataFrame = self._reading(lambda: self.scan(name).collect())
        return frame

    def overwrite(self, name: str, frame: pl.DataFrame, *, where: tuple[str, str] | None = None) -> bool:
        """Replace a table, or the rows of it in which column ``where[0]`` equals ``where[1]``.

        The frame must have been validated. Nothing is written when the content is already there, so a
        table's version changes exactly when its content does.

        Returns:
            Whether anything was written.
        """
        table = self._open(name)
        if table is not None:
            current = self._rows_of(table)
            if where is not None:
                current = current.filter(pl.col(where[0]) == where[1])
            if _same_content(self._reading(current.collect), frame):
                return False
        elif where is not None and frame.is_empty():
            return False
        predicate = None if table is None or where is None else f"{where[0]} = '{where[1]}'"
        grown = "merge" if predicate is not None and _has_new_columns(table, frame) else None
        self._write(name, frame, mode="overwrite", predicate=predicate, schema_mode=grown)
        return True

    def append(self, name: str, frame: pl.DataFrame, *, partition_by: str | None = None) -> int:
        """Add rows in one atomic commit. Returns the version that holds them."""
        table = self._current(name)
        grown = "merge" if _has_new_columns(table, frame) else None
        version = self._write(name, frame, mode="append", partition_by=partition_by, schema_mode=grown, table=table)
        if table is not None:
            self._kept.keep(self.table_path(name), table)
        return version

    def compact(self, name: str) -> None:
        """Merge a table's small files; no row changes. The log is summed up, too, so that it is read quickly."""
        table = self._open(name)
        if table is not None:
            with self._writing(name):
                table.optimize.compact()
                table.create_checkpoint()
            self._versions_written[name] = table.version()

    def file_count(self, name: str) -> int:
        """How many parquet files the current version of a table has."""
        table = self._current(name)
        return 0 if table is None else len(table.file_uris())

    def delete(self, name: str, predicate: str) -> None:
        """Remove the rows for which an SQL predicate holds."""
        table = self._open(name)
        if table is not None:
            with self._writing(name):
                table.delete(predicate)
            self._versions_written[name] = table.version()

    def replace(self, name: str, frame: pl.DataFrame, predicate: str) -> None:
        """Put rows in the place of those for which an SQL predicate holds, as it does for them, in one commit."""
        if frame.is_empty():
            self.delete(name, predicate)
            return
        grown = "merge" if _has_new_columns(self._open(name), frame) else None
        self._write(name, frame, mode="overwrite", predicate=predicate, schema_mode=grown)

    def rewrite(self, name: str, rows: pl.LazyFrame) -> None:
        """Replace a table by some of its own rows, in their order. They are held in memory."""
        self._write(name, self._reading(lambda: rows.collect(engine="in-memory")), mode="overwrite")

    def drop_history(self, name: str) -> None:
        """Make the present version of a table the only one: older files and log entries are gone for good.

        The number of the version stays, so that it never names two contents.
        """
        table = self._open(name)
        if table is None:
            return
        with self._writing(name):
            table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
            table = self._open(name)
            assert table is not None
            table.create_checkpoint()
            filesystem, log = self.filesystem(), f"{self.table_path(name)}/_delta_log"
            filesystem.invalidate_cache()
            for entry in filesystem.ls(log, detail=False):
                number = entry.rpartition("/")[2].split(".", 1)[0]
                if number.isdecimal() and int(number) < table.version():
                    filesystem.rm_file(entry)

    def take_versions(self) -> tuple[dict[str, int], dict[str, int]]:
        """The table versions read and written since the last call, and forget them."""
        taken = (self._versions_read, self._versions_written)
        self._versions_read, self._versions_written = {}, {}
        return taken

    @staticmethod
    def _rows_of(table: DeltaTable) -> pl.LazyFrame:
        from curation.delta_table import scanned

        return scanned(table)

    def _open(self, name: str, *, version: int | None = None) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        from curation.delta_table import LocalTable

        path = self.table_path(name)
        if self.is_local and not Path(path, "_delta_log").is_dir():
            return None
        try:
            kind = LocalTable if self.is_local else DeltaTable
            return kind(path, version=version, storage_options=self.storage_options)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError, ValueError) as error:
            raise self._cannot("read", path, error) from error

    def _current(self, name: str) -> DeltaTable | None:
        """A table as it is now. The handle is kept: what scans a table opens its own."""
        path = self.table_path(name)
        table = self._kept.take(path)
        if table is None:
            table = self._open(name)
            if table is not None:
                self._kept.keep(path, table)
        return table

    def _write(
        self,
        name: str,
        frame: Any,
        *,
        mode: str,
        predicate: str | None = None,
        partition_by: str | None = None,
        schema_mode: str | None = None,
        table: DeltaTable | None = None,
    ) -> int:
        """Write in one commit; returns the version that holds it. A table that is given is brought along."""
        from deltalake import write_deltalake

        path = self.table_path(name)
        self.check_ours()
        options: dict[str, Any] = {"mode": mode, "storage_options": self.storage_options}
        if predicate is not None:
            options["predicate"] = predicate
        elif mode == "overwrite":
            options["schema_mode"] = "overwrite"
        if schema_mode is not None:
            options["schema_mode"] = schema_mode
        if partition_by is not None:
            options["partition_by"] = [partition_by]
        with self._writing(name):
            write_deltalake(path if table is None else table, frame, **options)
        version = self.version(name) if table is None else int(table.version())
        assert version is not None
        self._versions_written[name] = version
        return version

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        from deltalake.exceptions import DeltaError

        try:
            yield
        except (DeltaError, OSError) as error:
            raise self._cannot("write", self.table_path(name), error) from error


def _has_new_columns(table: DeltaTable | None, frame: pl.DataFrame) -> bool:
    """Whether a frame has columns that a table of an earlier version lacks."""
    return table is not None and not set(frame.columns) <= {field.name for field in table.schema().fields}


def _same_content(current: pl.DataFrame, new: pl.DataFrame) -> bool:
    """Whether two frames hold the same columns and rows, in the same order."""
    if current.height != new.height or set(current.columns) != set(new.columns):
        return False
    current = current.select(new.columns)
    return current.schema == new.schema and current.equals(new)
