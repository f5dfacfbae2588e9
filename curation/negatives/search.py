"""Exact inner-product search: block-wise BLAS with a running top k. Approximate indexes live in ``index``."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from curation.negatives.inputs import Embeddings, Float32, Int64, blocks

__all__ = ["Found", "exact_search", "order_found"]

_QUERY_BLOCK: Final = 1_024
_CORPUS_BLOCK: Final = 4_096
_QUERIES_AT_ONCE: Final = 65_536
"""Queries per pass over the corpus: a corpus on disk is read once for so many queries."""


class Found(NamedTuple):
    """The nearest corpus rows of n queries, best first; among equal scores, the lower row first."""

    rows: Int64
    """(n, k), −1 where the corpus had fewer than k rows."""
    scores: Float32
    """(n, k), inner products; −inf beside −1."""


def exact_search(queries: Embeddings, corpus: Embeddings, k: int) -> Found:
    """The k corpus rows with the greatest inner product, for each query.

    Args:
        queries: (n, d).
        corpus: (m, d); only one block of it is held in float32 at a time.
        k: how many to return; more than m pads.
    """
    found = [_one_pass(queries[part], corpus, k) for part in blocks(len(queries), _QUERIES_AT_ONCE)]
    if not found:
        return Found(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    if len(found) == 1:
        return found[0]
    return Found(np.concatenate([f.rows for f in found]), np.concatenate([f.scores for f in found]))


def _one_pass(queries: Embeddings, corpus: Embeddings, k: int) -> Found:
    import faiss

    queries = np.ascontiguousarray(queries, dtype=np.float32)
    heap = faiss.ResultHeap(len(queries), k, keep_max=True)
    buffer = np.empty(_QUERY_BLOCK * _CORPUS_BLOCK, np.float32)
    for part in blocks(len(corpus), _CORPUS_BLOCK):
        documents = np.asarray(corpus[part], dtype=np.float32)
        ids = np.arange(part.start, part.stop, dtype=np.int64)
        for rows in blocks(len(queries), _QUERY_BLOCK):
            shape = (rows.stop - rows.start, len(documents))
            scores = buffer[: shape[0] * shape[1]].reshape(shape)
            np.matmul(queries[rows], documents.T, out=scores)
            heap.add_result_subset(np.arange(rows.start, rows.stop), scores, ids)
    heap.finalize()
    return order_found(heap.I, heap.D)


def order_found(rows: Int64, scores: Float32) -> Found:
    """Best first with ties by row; empty places are −1 and −inf. Changes its arguments.

    ``scores`` must be in falling order already, so that only lists with ties are sorted again.
    """
    scores[rows < 0] = -np.inf
    tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
    if len(tied):
        order = np.lexsort((rows[tied], -scores[tied]), axis=1)
        rows[tied] = np.take_along_axis(rows[tied], order, axis=1)
        scores[tied] = np.take_along_axis(scores[tied], order, axis=1)
    return Found(rows, scores)
