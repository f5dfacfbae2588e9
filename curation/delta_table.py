"""A Delta table on a local disk, whatever its folder is called. Where tables lie is in :mod:`curation.workspace`.

deltalake names a table's files by URL, so a space, a percent sign, a letter beyond ASCII in a folder is encoded;
polars opens what it is given as a path. Deltalake is imported with this module: import it where it is needed.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable

__all__ = ["LocalTable", "scanned"]

_SCHEME = "file://"


class LocalTable(DeltaTable):
    """A table whose files are named as they lie on the disk."""

    def file_uris(self, *arguments: Any, **options: Any) -> list[str]:
        """The paths of the data files. Only the folder is encoded: what follows is as on the disk."""
        root = self.table_uri.removeprefix(_SCHEME)
        folder = unquote(root)
        found = super().file_uris(*arguments, **options)
        return [folder + uri.removeprefix(root) if uri.startswith(root) else uri for uri in found]


def scanned(table: DeltaTable) -> pl.LazyFrame:
    """The rows of a table, read when they are asked for.

    Polars takes a folder ``a=b`` above a table for a partition of it, and stops; pyarrow does not.
    """
    return pl.scan_delta(table, use_pyarrow=isinstance(table, LocalTable) and "=" in unquote(table.table_uri))
