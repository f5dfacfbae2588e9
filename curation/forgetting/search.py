"""The proof: every file of a workspace is searched for what was to be forgotten. Nothing is removed here.

A file that packs its content so that this cannot be done is named: of it nothing is claimed.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Final, Literal, NamedTuple

import numpy as np
import polars as pl

from curation.errors import ModelError
from curation.forgetting.matching import Needles
from curation.journal import journal_folder
from curation.models.rewards.heads import HEADS_FILE, known_prompts, prompt_keys
from curation.stored import read_file, stored_files
from curation.workspace import Workspace

__all__ = ["Searched", "search_workspace"]


_PACKED: Final = (
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"7z\xbc\xaf\x27\x1c",
    b"\x28\xb5\x2f\xfd",
    b"ARROW1",
    b"PAR1",
)
"""How files begin in which a text does not stand as it is: archives, Arrow, parquet under another name."""
_OURS: Final = ("tables/", "datasets/", "trial/tables/", "trial/datasets/")
_GZIP: Final = b"\x1f\x8b\x08"


class Searched(NamedTuple):
    """What was searched, and where something is left."""

    files: int
    bytes: int
    decoded: int
    """Files whose values were compared, besides the bytes of all files: parquet, gzip, reward heads."""
    left: list[str]
    """Files in which something is left."""
    unread: list[str]
    """Files that are packed, or torn, so that nothing can be said of them."""
    identifiers: int
    texts: int


def search_workspace(workspace: Workspace, needles: Needles, *, but: tuple[str, ...] = ()) -> Searched:
    """Look into every file, table files of all versions included.

    Args:
        but: files that are not looked into.
    """
    files = {path: size for path, size in stored_files(workspace).items() if path not in but}
    decoded = 0
    left: list[str] = []
    unread: list[str] = []
    for path in files:
        found = _look(path, partial(read_file, workspace, path), needles)
        decoded += found == "decoded"
        if found in ("left", "unread"):
            (left if found == "left" else unread).append(workspace.path(path))
    count, size = len(files), sum(files.values())
    if not workspace.is_local and journal_folder(workspace).is_dir():
        for journal in sorted(journal_folder(workspace).iterdir()):
            count, size = count + 1, size + journal.stat().st_size
            if needles.in_bytes(journal.read_bytes()):
                left.append(str(journal))
    texts = len(needles.long) + len(needles.short)
    return Searched(count, size, decoded, left, unread, len(needles.identifiers), texts)


def _look(
    path: str, read: Callable[[], bytes], needles: Needles
) -> Literal["left", "decoded", "as it is", "unread"]:
    """Whether a file holds something, and how that was seen."""
    try:
        data = read()
    except FileNotFoundError:
        return "as it is"
    if needles.in_bytes(data):
        return "left"
    try:
        held = _in_values(path, data, needles)
    except (pl.exceptions.PolarsError, ModelError, OSError, EOFError, zlib.error):
        return "unread"
    if held is None:
        return "unread" if data.startswith(_PACKED) else "as it is"
    return "left" if held else "decoded"


def _in_values(path: str, data: bytes, needles: Needles) -> bool | None:
    """Whether a value in a file is one of them; None for a file that is searched as it is, or not at all."""
    if path.endswith(".parquet"):
        return bool(needles.rows(pl.read_parquet(BytesIO(data)), ours=path.startswith(_OURS)).any())
    if path.endswith(HEADS_FILE):
        return bool(np.isin(prompt_keys(needles.identifiers), known_prompts(data)).any())
    if data.startswith(_GZIP):
        return needles.in_bytes(gzip.decompress(data))
    return None
