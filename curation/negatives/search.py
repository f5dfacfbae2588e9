"""Inner-product search: exact, and within clusters. How clusters are made and chosen is in ``clusters``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.negatives.inputs import Embeddings, Float32, Int64, blocks
from curation.negatives.narrow import NarrowTops
from curation.negatives.threads import over_shards
from curation.negatives.tops import WideTops, narrow_pays

__all__ = [
    "DEEPER",
    "Found",
    "chunks",
    "exact_search",
    "nothing_found",
    "rescored",
    "scans_narrow",
    "search_lists",
]

DEEPER: Final = 2
"""Of rounded vectors so many times k rows are found and then scored exactly, where exact ones are at hand."""
_QUERY_BLOCK: Final = 1_024
_CORPUS_BLOCK: Final = 1_024
"""Blocks of 1,024 keep a block of scores (4 MB) in the caches of one core."""
_FEW: Final = 256
"""Queries below which rounding the corpus costs more than it saves."""
_MOST: Final = 1 / 8
"""Share of the corpus, beyond which so many documents are wanted that bounds decide little."""
_RESCORED_AT_ONCE: Final = 65_536
_CHUNK_BYTES: Final = 402_653_184
"""Of a corpus that is not float32 in memory already, so much is held as such at once: 262,144 rows of width 384."""


class Found(NamedTuple):
    """The nearest corpus rows of n queries, best first; among equal scores, the lower row first."""

    rows: Int64
    """(n, k), −1 where fewer than k rows were looked at."""
    scores: Float32
    """(n, k), inner products; −inf beside −1."""


def exact_search(queries: Embeddings, corpus: Embeddings, k: int, *, threads: int | None = None) -> Found:
    """The k corpus rows with the greatest inner product, for each query.

    Args:
        queries: (n, d).
        corpus: (m, d); memory holds one chunk of it in float32, 400 MB.
        k: how many to return; more than m pads.
        threads: how many to use, by default ``threads.default_threads()``.
    """
    if scans_narrow(queries=len(queries), rows=len(corpus), k=k):
        return _search_narrow(queries, corpus, k, threads=threads)
    return _search_wide(queries, corpus, k, threads=threads)


def scans_narrow(*, queries: int, rows: int, k: int) -> bool:
    """Whether scanning in bfloat16 is the quicker way to the k nearest."""
    return queries >= _FEW and k <= _MOST * rows and narrow_pays(queries * rows)


def _search_narrow(queries: Embeddings, corpus: Embeddings, k: int, *, threads: int | None) -> Found:
    found = nothing_found(len(queries), k)
    for part in blocks(len(queries), NarrowTops.queries_at_once(k)):
        tops = NarrowTops(queries[part], found.rows[part], found.scores[part], threads=threads)
        for chunk, documents in chunks(corpus):
            tops.show(documents, chunk.start)
        left = part.start + tops.undecided()
        if len(left):
            found.rows[left], found.scores[left] = _search_wide(queries[left], corpus, k, threads=threads)
    return found


def _search_wide(queries: Embeddings, corpus: Embeddings, k: int, *, threads: int | None) -> Found:
    found = nothing_found(len(queries), k)
    for part in blocks(len(queries), WideTops.queries_at_once):
        tops = WideTops(queries[part], k)
        for chunk, documents in chunks(corpus):
            over_shards(partial(_scan_all, tops, documents, chunk.start), len(tops.queries), threads=threads)
        tops.finish(found.rows[part], found.scores[part])
    return found


def search_lists(
    queries: Embeddings,
    corpus: Embeddings,
    k: int,
    *,
    list_of_row: npt.NDArray[Any],
    probes: npt.NDArray[Any],
    threads: int | None = None,
) -> Found:
    """As :func:`exact_search`, over the corpus rows in each query's lists only; the scores are exact.

    The work goes list by list: the rows of a list meet all queries that probe it in one matrix product,
    so that every corpus row is read once, and no copy of the corpus is made.

    Args:
        queries: (n, d).
        corpus: (m, d).
        k: how many to return.
        list_of_row: (m,) the list of each corpus row.
        probes: (n, p) the lists each query looks into, each once.
        threads: how many to use.
    """
    found = nothing_found(len(queries), k)
    lists = int(max(list_of_row.max(initial=0), probes.max(initial=0))) + 1
    # In float32: a list is short and its queries lie apart, so that gathering them costs what bfloat16 saves.
    for part in blocks(len(queries), WideTops.queries_at_once):
        tops = WideTops(queries[part], k)
        for chunk, documents in chunks(corpus):
            members = _group(list_of_row[chunk], lists, first=chunk.start)
            scan = partial(_scan_lists, tops, documents, members, probes[part])
            over_shards(scan, len(tops.queries), threads=threads)
        tops.finish(found.rows[part], found.scores[part])
    return found


def rescored(found: Found, queries: Embeddings, exact: Embeddings, k: int) -> Found:
    """The k best of what was found among rounded vectors, by the scores of the ``exact`` ones."""
    rows = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    for part in blocks(len(queries), max(1, _RESCORED_AT_ONCE // max(found.rows.shape[1], 1))):
        near = found.rows[part]
        documents = np.asarray(exact[np.maximum(near, 0)], np.float32)
        true = np.einsum("nd,nkd->nk", np.asarray(queries[part], np.float32), documents)
        true[near < 0] = -np.inf
        order = np.lexsort((near, -true), axis=1)[:, :k]
        width = order.shape[1]
        rows[part, :width] = np.take_along_axis(near, order, axis=1)
        scores[part, :width] = np.take_along_axis(true, order, axis=1)
    return Found(rows, scores)


def _scan_all(tops: WideTops, documents: Float32, first: int, shard: slice) -> None:
    for rows in blocks(len(documents), _CORPUS_BLOCK):
        ids = np.arange(first + rows.start, first + rows.stop, dtype=np.int64)
        for at in blocks(shard.stop - shard.start, _QUERY_BLOCK):
            tops.add(np.arange(shard.start + at.start, shard.start + at.stop), documents[rows], ids)


def _scan_lists(
    tops: WideTops, documents: Float32, members: _Groups, probes: npt.NDArray[Any], shard: slice
) -> None:
    askers = _group(probes[shard], members.lists)
    for number in range(members.lists):
        rows, who = members.of(number), askers.of(number) // probes.shape[1] + shard.start
        if not (len(rows) and len(who)):
            continue
        for r in blocks(len(rows), _CORPUS_BLOCK):
            some, ids = documents[rows[r]], rows[r] + members.first
            for w in blocks(len(who), _QUERY_BLOCK):
                tops.add(who[w], some, ids)


class _Groups(NamedTuple):
    """Positions grouped by the list they belong to."""

    order: Int64
    offsets: Int64
    first: int
    """The corpus row of position 0."""

    @property
    def lists(self) -> int:
        return len(self.offsets) - 1

    def of(self, number: int) -> Int64:
        return self.order[self.offsets[number] : self.offsets[number + 1]]


def _group(numbers: npt.NDArray[Any], lists: int, *, first: int = 0) -> _Groups:
    flat = numbers.ravel()
    # Stable sorting of 16-bit numbers is a radix sort.
    order = np.argsort(flat.astype(np.uint16) if lists <= 65_536 else flat, kind="stable")
    offsets = np.zeros(lists + 1, np.int64)
    np.cumsum(np.bincount(flat, minlength=lists), out=offsets[1:])
    return _Groups(order, offsets, first)


def chunks(corpus: Embeddings) -> Iterator[tuple[slice, Float32]]:
    """(slice, rows as float32): all at once where that copies nothing."""
    if corpus.dtype == np.float32 and not isinstance(corpus, np.memmap):
        yield slice(0, len(corpus)), corpus
        return
    for part in blocks(len(corpus), max(_CORPUS_BLOCK, _CHUNK_BYTES // (4 * max(corpus.shape[1], 1)))):
        yield part, np.asarray(corpus[part], dtype=np.float32)


def nothing_found(n: int, k: int) -> Found:
    """(n, k) of padding."""
    return Found(np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32))
