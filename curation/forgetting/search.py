"""The proof: every file of a workspace is searched for what was to be forgotten. Nothing is removed here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import NamedTuple

import polars as pl

from curation.forgetting.matching import Needles
from curation.journal import journal_folder
from curation.stored import read_file, stored_files
from curation.workspace import Workspace

__all__ = ["Searched", "search_workspace"]


class Searched(NamedTuple):
    """What was searched, and where something is left."""

    files: int
    bytes: int
    decoded: int
    """Parquet files whose values were compared, besides the bytes of all files."""
    left: list[str]
    """Files in which something is left."""
    identifiers: int
    texts: int


def search_workspace(workspace: Workspace, needles: Needles, *, but: tuple[str, ...] = ()) -> Searched:
    """Look into every file, table files of all versions included.

    Args:
        but: files that are not looked into.
    """
    files = {path: size for path, size in stored_files(workspace).items() if path not in but}
    decoded, left = 0, []
    for path in files:
        found, was_decoded = _holds(path, partial(read_file, workspace, path), needles)
        decoded += was_decoded
        if found:
            left.append(workspace.path(path))
    count, size = len(files), sum(files.values())
    if not workspace.is_local and journal_folder(workspace).is_dir():
        for journal in sorted(journal_folder(workspace).iterdir()):
            count, size = count + 1, size + journal.stat().st_size
            if needles.in_bytes(journal.read_bytes()):
                left.append(str(journal))
    texts = len(needles.long) + len(needles.short)
    return Searched(count, size, decoded, left, len(needles.identifiers), texts)


def _holds(path: str, read: Callable[[], bytes], needles: Needles) -> tuple[bool, bool]:
    """Whether a file holds something, and whether its values could be decoded."""
    try:
        data = read()
    except FileNotFoundError:
        return False, False
    if needles.in_bytes(data):
        return True, path.endswith(".parquet")
    if not path.endswith(".parquet"):
        return False, False
    try:
        return bool(needles.rows(pl.read_parquet(BytesIO(data))).any()), True
    except pl.exceptions.PolarsError:
        return False, False
