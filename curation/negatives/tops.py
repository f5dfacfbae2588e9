"""The running k best of many queries in float32: what a search shows documents to.

How documents are chosen is in ``search``; what is quicker where the processor multiplies bfloat16, in ``narrow``.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from curation.negatives.bfloat16 import multiplies_bfloat16
from curation.negatives.inputs import Embeddings, Float32, Int64

__all__ = ["WideTops", "narrow_pays"]

_WORTH_IT: Final = 1e8
"""Products of a query and a document from which narrow numbers save more than PyTorch's import costs."""


def narrow_pays(products: int) -> bool:
    """Whether so many products of vectors are done sooner in bfloat16 on this processor."""
    return products >= _WORTH_IT and multiplies_bfloat16()


class WideTops:
    """For every processor. Threads may work on it side by side, each on its own queries."""

    queries_at_once: Final = 131_072

    def __init__(self, queries: Embeddings, k: int) -> None:
        import faiss

        self.queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._heap = faiss.ResultHeap(len(queries), k, keep_max=True)

    def add(self, who: Int64, documents: Float32, ids: Int64) -> None:
        """Shows some documents, and their corpus rows, to some queries, each named once."""
        scores = self.queries[who] @ documents.T
        # The root of a query's heap is its k-th best so far: most queries have nothing to gain.
        useful = scores.max(axis=1) > self._heap.D[who, 0]
        if not useful.all():
            who, scores = who[useful], scores[useful]
        if len(who):
            self._heap.add_result_subset(who, scores, ids)

    def finish(self, rows: Int64, scores: Float32) -> None:
        """Writes the k best, best first and of equal ones the lower row first, to (n, k) arrays."""
        self._heap.finalize()
        rows[:], scores[:] = self._heap.I, self._heap.D
        scores[rows < 0] = -np.inf
        tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
        if len(tied):
            order = np.lexsort((rows[tied], -scores[tied]), axis=1)
            rows[tied] = np.take_along_axis(rows[tied], order, axis=1)
            scores[tied] = np.take_along_axis(scores[tied], order, axis=1)
