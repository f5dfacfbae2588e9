"""The running k best of many queries: what a search shows documents to. How documents are chosen is in ``search``.

``NarrowTops`` scans in bfloat16 where the processor is made for it; the results of both are those of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from curation.negatives.inputs import Embeddings, Float32, Int64
from curation.negatives.narrow import NarrowTops, multiplies_bfloat16

__all__ = ["Tops", "WideTops", "narrow_pays", "tops_for"]

_WORTH_IT: Final = 1e8
"""Products of a query and a document from which narrow numbers save more than PyTorch's import costs."""
_QUERIES_AT_ONCE: Final = 131_072


class Tops(Protocol):
    """The running k best of n queries. Threads may work on it side by side, each on its own queries."""

    queries: Float32
    documents_at_once: int
    """Of a block, so that its scores stay in the caches of one core."""

    def __init__(self, queries: Embeddings, k: int) -> None: ...

    @staticmethod
    def queries_at_once(k: int) -> int:
        """Queries per pass over the corpus: a corpus on disk is read once for so many queries."""

    def open(self, documents: Float32, first: int) -> None:
        """Says which documents, from corpus row ``first`` on, the next blocks are from."""

    def block(self, documents: Float32, ids: Int64) -> Any:
        """Some of the open documents, and their corpus rows, ready to be shown."""

    def add(self, who: Int64, block: Any) -> None:
        """Shows a block of documents to some queries, each named once."""

    def start(self, who: Int64, blocks: Sequence[Any]) -> None:
        """Shows some blocks to queries that have seen none."""

    def settle(self, shard: slice) -> None:
        """Ends the work on the open documents for some queries."""

    def finish(self, rows: Int64, scores: Float32) -> None:
        """Writes the k best, best first and of equal ones the lower row first, to (n, k) arrays."""


def narrow_pays(products: int) -> bool:
    """Whether so many products of vectors are done sooner in bfloat16 on this processor."""
    return products >= _WORTH_IT and multiplies_bfloat16()


def tops_for(*, queries: int, rows: int) -> type[Tops]:
    """The quickest kind for so many queries and corpus rows on this processor."""
    return NarrowTops if narrow_pays(queries * rows) else WideTops


class _WideBlock(NamedTuple):
    documents: Float32
    ids: Int64


class WideTops:
    """By float32 products alone, for every processor."""

    documents_at_once = 1_024

    def __init__(self, queries: Embeddings, k: int) -> None:
        import faiss

        self.queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._heap = faiss.ResultHeap(len(queries), k, keep_max=True)

    @staticmethod
    def queries_at_once(k: int) -> int:
        return _QUERIES_AT_ONCE

    def open(self, documents: Float32, first: int) -> None:
        pass

    def block(self, documents: Float32, ids: Int64) -> _WideBlock:
        return _WideBlock(documents, ids)

    def add(self, who: Int64, block: _WideBlock) -> None:
        scores = self.queries[who] @ block.documents.T
        # The root of a query's heap is its k-th best so far: most queries have nothing to gain.
        useful = scores.max(axis=1) > self._heap.D[who, 0]
        if not useful.all():
            who, scores = who[useful], scores[useful]
        if len(who):
            self._heap.add_result_subset(who, scores, block.ids)

    def start(self, who: Int64, blocks: Sequence[_WideBlock]) -> None:
        for block in blocks:
            self.add(who, block)

    def settle(self, shard: slice) -> None:
        pass

    def finish(self, rows: Int64, scores: Float32) -> None:
        self._heap.finalize()
        rows[:], scores[:] = self._heap.I, self._heap.D
        scores[rows < 0] = -np.inf
        tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
        if len(tied):
            order = np.lexsort((rows[tied], -scores[tied]), axis=1)
            rows[tied] = np.take_along_axis(rows[tied], order, axis=1)
            scores[tied] = np.take_along_axis(scores[tied], order, axis=1)
