"""Rows of a dataset as they were published last. Writing them is in ``publication``; no stage is here."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from curation.errors import WorkspaceError
from curation.workspace import Workspace

__all__ = ["published_columns"]


def published_columns(workspace: Workspace, dataset: str, columns: Sequence[str]) -> pl.DataFrame | None:
    """Those of the columns that a published dataset has, all splits together; None while it is not published.

    Raises:
        WorkspaceError: when its files cannot be read.
    """
    folder = f"{workspace.dataset_path(dataset)}/data"
    filesystem = workspace.filesystem()
    if not filesystem.exists(folder):
        return None
    options = None if workspace.is_local else dict(workspace.storage_options)
    try:
        rows = pl.scan_parquet(f"{folder}/*.parquet", storage_options=options)
        there = [c for c in columns if c in rows.collect_schema().names()]
        # A column of nothing but nulls is left out of the files, so the number of rows is kept beside them.
        return rows.select(pl.int_range(pl.len()).alias("_row"), *there).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise WorkspaceError(
            f"cannot read what was published in {folder}: {' '.join(str(error).split())[:300]}. Restore the "
            f"folder, or move it away to publish a first version"
        ) from error
