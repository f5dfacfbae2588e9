"""The index of the corpus that a workspace keeps: built once, extended by new documents. No stage is here.

    <workspace>/indexes/<name>/     curation.negatives.store
    <workspace>/indexes/<name>/ids.npy   the text_id of each row
    <workspace>/indexes/<name>/exact.bin   for int8: (rows, d) float16, to score again what was found

It is made from the ledger alone. Vectors go from there to the index in chunks, so a corpus need not fit in
memory.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from curation.errors import WorkspaceError
from curation.ledger import LedgerKey
from curation.negatives.inputs import Embeddings, Float32, Storage
from curation.negatives.store import CorpusIndex, build_index, open_index
from curation.scores.similarity import vector_matrix
from curation.stages.context import Context
from curation.text import content_hash

__all__ = ["KeptIndex", "kept_index"]

_CHUNK: Final = 100_000
_EXACT: Final = "exact.bin"


class KeptIndex(NamedTuple):
    """An index that holds the vector of every document that has one."""

    corpus_index: CorpusIndex
    ids: pl.Series
    """text_id of each of its rows."""
    added: int
    """Rows that this call added."""
    rebuilt: bool
    """Whether it was built anew, because documents that it held are gone, or it was damaged."""

    @property
    def vectors(self) -> Embeddings:
        """The vectors by which is scored, mapped from disk: the index's own, but for int8."""
        index = self.corpus_index
        if index.storage != "int8":
            return index.vectors
        return np.memmap(index.folder / _EXACT, np.float16, "r", shape=index.vectors.shape)


def kept_index(context: Context, ids: pl.Series, key: LedgerKey, *, storage: Storage) -> KeptIndex | None:
    """The workspace's index of these texts, brought up to date; None where no text has a vector.

    Args:
        ids: distinct text ids.
        key: of the ledger that has their vectors.
        storage: how vectors lie in the index.
    """
    folder = Path(context.workspace.index_path(content_hash("index", key.producer, storage)[:16]))
    opened = _opened(folder)
    there = _ids(folder, opened.rows) if opened else ids.clear()
    rebuilt = folder.exists() and (opened is None or not there.is_in(ids.implode()).all())
    if rebuilt:
        shutil.rmtree(folder)
        opened, there = None, ids.clear()
    new = ids.filter(~ids.is_in(there.implode()))
    before = len(there)
    for start in range(0, len(new), _CHUNK):
        rows = context.ledger.fetch(key, new[start : start + _CHUNK]).select("text_id", "vector")
        if rows.is_empty():
            continue
        done = len(there)
        there = pl.concat([there, rows["text_id"].alias(there.name)])
        # The ids are written first: ids without a row are cut off, a row without an id would have no name.
        _write_ids(folder, there)
        vectors = vector_matrix(rows["vector"])
        if storage == "int8":
            _write_exact(folder, done, vectors)
        if opened is None:
            opened = build_index(folder, vectors, storage=storage, seed=context.recipe.seed)
        else:
            opened.extend(vectors)
    return None if opened is None else KeptIndex(opened, there, len(there) - before, rebuilt)


def _opened(folder: Path) -> CorpusIndex | None:
    """The index in a folder; None where there is none, or it is damaged."""
    try:
        found = open_index(folder)
    except WorkspaceError:
        return None
    ids, exact = folder / "ids.npy", folder / _EXACT
    named = ids.exists() and len(np.load(ids, mmap_mode="r")) >= found.rows
    size = 2 * found.vectors.size if found.storage == "int8" else 0
    return found if named and size <= (exact.stat().st_size if exact.exists() else 0) else None


def _ids(folder: Path, rows: int) -> pl.Series:
    return pl.Series("text_id", np.load(folder / "ids.npy")[:rows].astype(str), dtype=pl.String)


def _write_ids(folder: Path, ids: pl.Series) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "ids.npy.tmp"
    with temporary.open("wb") as file:
        np.save(file, np.array(ids.to_list(), dtype="S32"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / "ids.npy")


def _write_exact(folder: Path, at: int, vectors: Float32) -> None:
    """Puts vectors after the first ``at`` rows, over what a killed writer may have left."""
    path = folder / _EXACT
    path.touch()
    with path.open("r+b") as file:
        file.seek(2 * at * vectors.shape[1])
        file.write(vectors.astype(np.float16).tobytes())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
