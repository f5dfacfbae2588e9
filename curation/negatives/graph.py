"""HNSW: a graph of neighbours that is walked from each query (Malkov & Yashunin 2018), made by faiss.

What is found is scored again with the embeddings themselves, and the recall is measured. The graph is made in
memory for one search; an index that is kept is in ``store``, which kind of index a problem gets in ``index``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.negatives.inputs import Embeddings, Float32, Storage, blocks
from curation.negatives.recall import measured_recall, sampled_queries
from curation.negatives.search import DEEPER, Found, exact_search, rescored
from curation.negatives.threads import over_shards

__all__ = ["Walked", "search_graph"]

_LINKS: Final = 32
_BUILD_DEPTH: Final = 100
"""Neighbours looked at for each row that is put in (efConstruction): Malkov & Yashunin use 100 and more."""
_BLOCK: Final = 16_384
_SAMPLE: Final = 256
_DEEPEST: Final = 64
"""No query looks at more than so many times k rows: beyond, an exact search costs no more."""


class Walked(NamedTuple):
    """What a walk found."""

    found: Found
    recall: float
    """The share of the true k nearest that was found, over a sample of the queries."""
    depth: int
    """How many rows a query kept in view (efSearch)."""


def search_graph(
    queries: Embeddings,
    corpus: Embeddings,
    k: int,
    *,
    target_recall: float,
    storage: Storage = "float32",
    seed: int = 0,
    threads: int | None = None,
) -> Walked:
    """The k nearest corpus rows of each query, as far as a walk through the graph finds them.

    The depth of the walk is doubled from k on until the recall on 256 queries that are searched exactly is at
    least the target, with 95 % confidence; at 64 k it ends, and the recall says what was reached.

    Args:
        queries: (n, d), n ≥ 1.
        corpus: (m, d), m ≥ 1.
        k: how many rows to return; more than m pads.
        target_recall: the least recall.
        storage: how the graph holds vectors; the scores are those of ``corpus`` in any case.
        seed: of the sample.
        threads: of the search; the graph is made by one, so that it is the same each time.
    """
    graph = _build(corpus, storage)
    deep = min(len(corpus), k if storage == "float32" else k * DEEPER)
    picked = sampled_queries(len(queries), _SAMPLE, seed=seed)
    sample = np.asarray(queries[picked], np.float32)
    truth = exact_search(sample, corpus, min(k, len(corpus)), threads=threads)
    depth, most = deep, min(len(corpus), deep * _DEEPEST)
    while True:
        walked = _walk(graph, sample, corpus, k, deep=deep, depth=depth, threads=threads)
        recall = measured_recall(_shares(truth, walked))
        if recall.lower >= target_recall or depth >= most:
            found = _walk(graph, queries, corpus, k, deep=deep, depth=depth, threads=threads)
            return Walked(found, float(recall.mean), depth)
        depth = min(2 * depth, most)


def _build(corpus: Embeddings, storage: Storage) -> Any:
    """The graph; by one thread, in order, since what several make differs from run to run."""
    library = _faiss()
    width, product = corpus.shape[1], library.METRIC_INNER_PRODUCT
    if storage == "float32":
        graph = library.IndexHNSWFlat(width, _LINKS, product)
    else:
        rounding = {"float16": library.ScalarQuantizer.QT_fp16, "int8": library.ScalarQuantizer.QT_8bit}[storage]
        graph = library.IndexHNSWSQ(width, rounding, _LINKS, product)
    graph.hnsw.efConstruction = _BUILD_DEPTH
    # The ends of the ranges of int8 are those of the first rows; what lies beyond is cut, and scored exactly later.
    first = np.asarray(corpus[:_BLOCK], np.float32)

    def work(shard: slice) -> None:
        if not graph.is_trained:
            graph.train(first)
        for part in blocks(len(corpus), _BLOCK):
            graph.add(np.ascontiguousarray(corpus[part], dtype=np.float32))

    over_shards(work, len(corpus), threads=1)
    return graph


def _faiss() -> Any:
    """As Any: the type stubs that come with faiss lack half of what HNSW needs."""
    import faiss

    return faiss


def _walk(
    graph: Any, queries: Embeddings, corpus: Embeddings, k: int, *, deep: int, depth: int, threads: int | None
) -> Found:
    rows = np.empty((len(queries), deep), np.int64)
    scores: Float32 = np.empty((len(queries), deep), np.float32)
    settings = _faiss().SearchParametersHNSW(efSearch=depth)

    def work(shard: slice) -> None:
        for at in blocks(shard.stop - shard.start, _BLOCK):
            part = slice(shard.start + at.start, shard.start + at.stop)
            asked = np.ascontiguousarray(queries[part], dtype=np.float32)
            scores[part], rows[part] = graph.search(asked, deep, params=settings)

    over_shards(work, len(queries), threads=threads)
    return rescored(Found(rows, scores), queries, corpus, k)


def _shares(truth: Found, found: Found) -> npt.NDArray[np.float64]:
    """For each query, the share of its true nearest rows that was found."""
    return np.array([np.isin(true, near).mean() for true, near in zip(truth.rows, found.rows, strict=True)])
