"""A corpus index in a folder: vectors, their clusters and centroids; built once, extended by appending.

    index.json          what is in the other files, and how many rows of them count; replaced atomically
    vectors.bin         (rows, d) little-endian float32, float16 or int8
    lists-<g>.bin       (rows,) int32, the cluster of each row; g counts the trainings
    centroids-<g>.npy   (lists, d) float32

Rows are appended first and ``index.json`` is replaced last, so a killed ``extend`` leaves the index as it
was; what it had appended is overwritten by the next one. One writer at a time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import numpy as np

from curation.errors import InputError, WorkspaceError
from curation.negatives.clusters import (
    Clusters,
    Probing,
    assign,
    search_clusters,
    suggest_lists,
    train_centroids,
    tune_probes,
)
from curation.negatives.index import TARGET_RECALL, Searched
from curation.negatives.inputs import Embeddings, Storage, as_embeddings, blocks
from curation.negatives.recall import sampled_queries
from curation.negatives.search import DEEPER, Found, exact_search, rescored

__all__ = ["CorpusIndex", "Storage", "build_index", "open_index"]

_VERSION: Final = 1
_RETRAIN_AT: Final = 4
"""Centroids are trained anew once the corpus has grown so many times since they were."""
_BLOCK: Final = 65_536
_COMPARED: Final = 64
"""Rows of an index that are compared with the corpus it is given for."""
_MEASURED_QUERIES: Final = 256
_ROUNDING: Final = 0.3
"""How far a unit vector is at most from what int8 makes of it, generously: other texts are further apart."""


class _Meta(NamedTuple):
    version: int
    dimension: int
    storage: Storage
    rows: int
    trained_rows: int
    generation: int
    scale: float
    """What an int8 vector was multiplied with; 1 for floats."""
    seed: int


class CorpusIndex:
    """An index in a folder; see the module's text. Make it with ``build_index`` or ``open_index``."""

    def __init__(self, folder: Path, meta: _Meta) -> None:
        self.folder = folder
        self._meta = meta

    @property
    def rows(self) -> int:
        return self._meta.rows

    @property
    def storage(self) -> Storage:
        return self._meta.storage

    @property
    def vectors(self) -> Embeddings:
        """(rows, d) mapped from disk; of an int8 index they are in units of 1 / scale."""
        return self._stored()

    def extend(self, vectors: Any, *, threads: int | None = None) -> None:
        """Appends rows; they get the next row numbers.

        Raises:
            InputError: when they are not L2-normalised, or of another width.
        """
        new, old = as_embeddings(vectors, name="vectors"), self._meta
        if new.shape[1] != old.dimension:
            raise InputError(f"vectors: found width {new.shape[1]}, expected {old.dimension} as in {self.folder}")
        if not len(new):
            return
        for part in blocks(len(new), _BLOCK):
            _append(self.folder / "vectors.bin", (old.rows + part.start) * old.dimension, self._encode(new[part]))
        meta = old._replace(rows=old.rows + len(new))
        if meta.rows > _RETRAIN_AT * old.trained_rows:
            self._meta = meta = meta._replace(trained_rows=meta.rows, generation=old.generation + 1)
            stored = self._stored()
            centroids = train_centroids(stored, suggest_lists(meta.rows), seed=meta.seed, threads=threads)
            np.save(self._centroids_path(), centroids)
            _append(self._lists_path(), 0, assign(stored, centroids, threads=threads))
        else:
            _append(self._lists_path(), old.rows, assign(new, self._clusters().centroids, threads=threads))
        self._meta = meta
        _write_meta(self.folder, meta)
        # Of earlier trainings; whatever else lies in the folder is not ours.
        for path in (*self.folder.glob("lists-*.bin"), *self.folder.glob("centroids-*.npy")):
            if path not in (self._centroids_path(), self._lists_path()):
                path.unlink()

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        exact: Embeddings | None = None,
        target_recall: float = TARGET_RECALL,
        seed: int = 0,
        threads: int | None = None,
    ) -> Searched:
        """The k nearest rows of each query, from disk, chunk by chunk.

        Args:
            queries: (n, d) float32.
            k: how many rows.
            exact: the corpus itself, if it is at hand: what was found in float16 or int8 is then scored
                again exactly, and the recall is measured against it. Without it the scores are those of
                the stored vectors, and so is the truth that the recall refers to.
            target_recall: see ``index.search``.
            seed: of the sample on which the recall is measured.
            threads: how many to use.
        """
        if not self.rows:
            raise InputError(f"{self.folder}: the index is empty, expected at least one row")
        stored, clusters = self._stored(), self._clusters()
        deep = k if exact is None or self.storage == "float32" else min(self.rows, k * DEEPER)
        probing = (
            tune_probes(queries, stored, clusters, deep, target=target_recall, seed=seed, threads=threads)
            if len(queries)
            else Probing(1, 1.0, 1.0)
        )
        found = search_clusters(queries, stored, deep, clusters, lists=probing.lists, threads=threads)
        recall = probing.recall
        if exact is not None and self.storage != "float32":
            found = rescored(found, queries, exact, k)
            recall = _measured(found, queries, exact, k, seed=seed, threads=threads)
        elif self.storage == "int8":
            found = Found(found.rows, found.scores / np.float32(self._meta.scale))
        method = f"ivf on disk, {self.storage}: {probing.lists} of {len(clusters.centroids)} lists"
        return Searched(found, recall, method)

    def check_holds(self, corpus: Embeddings) -> None:
        """
        Raises:
            InputError: when the index is plainly not one of ``corpus``: other rows, another width, or other
                vectors in some rows that are looked at.
        """
        if corpus.shape != (self.rows, self._meta.dimension):
            raise InputError(
                f"index {self.folder}: holds {self.rows} rows of width {self._meta.dimension}, the corpus "
                f"{corpus.shape[0]} of {corpus.shape[1]}: extend the index, or build one of this corpus"
            )
        picked = np.unique(np.linspace(0, self.rows - 1, _COMPARED).astype(np.int64))
        held = np.asarray(self._stored()[picked], np.float32) / np.float32(self._meta.scale)
        apart = np.linalg.norm(held - np.asarray(corpus[picked], np.float32), axis=1) > _ROUNDING
        if apart.any():
            raise InputError(
                f"index {self.folder}: its row {picked[apart.argmax()]} is another vector than the corpus's: "
                "build an index of this corpus, in this order"
            )

    def _stored(self) -> Embeddings:
        """(rows, d) mapped from disk. int8 is in units of 1 / scale, which changes no order."""
        return np.memmap(
            self.folder / "vectors.bin", self._meta.storage, "r", shape=(self.rows, self._meta.dimension)
        )

    def _clusters(self) -> Clusters:
        lists = np.fromfile(self._lists_path(), np.int32, count=self.rows)
        return Clusters(np.load(self._centroids_path()), lists)

    def _encode(self, part: Embeddings) -> Embeddings:
        if self.storage != "int8":
            return part.astype(self.storage)
        scaled = np.rint(part.astype(np.float32) * np.float32(self._meta.scale))
        rounded: Embeddings = np.clip(scaled, -127, 127).astype(np.int8)
        return rounded

    def _centroids_path(self) -> Path:
        return self.folder / f"centroids-{self._meta.generation}.npy"

    def _lists_path(self) -> Path:
        return self.folder / f"lists-{self._meta.generation}.bin"


def build_index(
    folder: str | Path, vectors: Any, *, storage: Storage = "float16", seed: int = 0, threads: int | None = None
) -> CorpusIndex:
    """A new index of ``vectors`` in an empty or missing folder.

    Raises:
        InputError: when the folder holds an index already, or the vectors are not L2-normalised.
    """
    folder, first = Path(folder), as_embeddings(vectors, name="vectors")
    if (folder / "index.json").exists():
        raise InputError(f"{folder}: holds an index already; open and extend it, or choose another folder")
    if storage not in get_args(Storage):
        raise InputError(f"storage: found {storage!r}, expected one of {', '.join(get_args(Storage))}")
    folder.mkdir(parents=True, exist_ok=True)
    largest = float(np.abs(np.asarray(first[:_BLOCK], np.float32)).max(initial=0.0)) or 1.0
    scale = 127 / largest if storage == "int8" else 1.0
    index = CorpusIndex(folder, _Meta(_VERSION, first.shape[1], storage, 0, 0, 0, scale, seed))
    index.extend(first, threads=threads)
    if not index.rows:
        _write_meta(folder, index._meta)
    return index


def open_index(folder: str | Path) -> CorpusIndex:
    """The index in a folder.

    Raises:
        WorkspaceError: when there is none, it is damaged, or a newer version wrote it.
    """
    folder = Path(folder)
    try:
        meta = _Meta(**json.loads((folder / "index.json").read_text()))
    except FileNotFoundError as error:
        raise WorkspaceError(f"{folder}: no index.json, so no index is here; build it first") from error
    except (ValueError, TypeError) as error:
        raise WorkspaceError(f"{folder}/index.json is damaged ({error}); build the index again") from error
    if meta.version > _VERSION:
        raise WorkspaceError(f"{folder}: index version {meta.version}, this program knows {_VERSION}; update it")
    index = CorpusIndex(folder, meta)
    expected = {
        folder / "vectors.bin": meta.rows * meta.dimension * np.dtype(meta.storage).itemsize,
        index._lists_path(): 4 * meta.rows,
    }
    for path, size in expected.items():
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise WorkspaceError(f"{path}: found {found} bytes, expected {size}; build the index again")
    return index


def _append(path: Path, at: int, values: np.ndarray) -> None:
    """Writes values after the first ``at`` items, over what a killed writer may have left."""
    path.touch()
    with path.open("r+b") as file:
        file.seek(at * values.itemsize)
        file.write(np.ascontiguousarray(values).data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _write_meta(folder: Path, meta: _Meta) -> None:
    temporary = folder / "index.json.tmp"
    with temporary.open("w") as file:
        json.dump(meta._asdict(), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / "index.json")


def _measured(
    found: Found, queries: Embeddings, exact: Embeddings, k: int, *, seed: int, threads: int | None
) -> float:
    """The share of the true k nearest that was found, on a sample of the queries."""
    picked = sampled_queries(len(queries), _MEASURED_QUERIES, seed=seed + 1)
    if not len(picked):
        return 1.0
    truth = exact_search(np.asarray(queries[picked], np.float32), exact, min(k, len(exact)), threads=threads)
    hits = [np.isin(t, f).mean() for t, f in zip(truth.rows, found.rows[picked], strict=True)]
    return float(np.mean(hits))
