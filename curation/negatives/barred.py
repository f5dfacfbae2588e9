"""Search past documents that are out of the question for an anchor, as if they were not in the corpus.

What bars a document is a ``filters.CandidateFilter`` (``sides.SplitFilter``). The search itself is in ``index``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.negatives.filters import Bool, CandidateFilter, Candidates
from curation.negatives.index import Searched
from curation.negatives.inputs import Embeddings, Float32, Int64, blocks
from curation.negatives.search import Found, exact_search, nothing_found

__all__ = ["Past", "search_past"]

_DEEPEST: Final = 16
"""So many times k neighbours are looked at for an anchor, or a little more, whatever stands among them (ours)."""
_SPARE: Final = 1.25
_SAMPLED: Final = 64
_BLOCK: Final = 8_192


class Past(NamedTuple):
    """What was found, and what was passed over."""

    searched: Searched
    """(n, k) rows that are not barred, best first."""
    passed: Int64
    """(n,) how many barred ones are nearer than the last of them."""


def search_past(
    look: Callable[[int], Searched],
    barred: CandidateFilter,
    *,
    queries: Embeddings,
    corpus: Embeddings,
    k: int,
    threads: int | None = None,
) -> Past:
    """The k nearest rows of each query that are not barred: one search, and deeper, exact ones where that is short.

    Args:
        look: the search of all queries, so many rows deep.
        queries: (n, d).
    """
    share = _share(barred, queries=len(queries), rows=len(corpus))
    depth = k if not share else min(len(corpus), math.ceil(_SPARE * k / max(1 - share, 1 / _DEEPEST)))
    searched = look(depth)
    found, passed = _allowed(searched.found, barred, np.arange(len(queries)), k)
    short = np.flatnonzero(found.rows[:, -1] < 0)
    while len(short) and depth < min(len(corpus), _DEEPEST * k):
        depth = min(2 * depth, len(corpus))
        # Making clusters or a graph anew for a few would cost more than it saves.
        deeper = exact_search(queries[short], corpus, depth, threads=threads)
        more, passed[short] = _allowed(deeper, barred, short, k)
        found.rows[short], found.scores[short] = more
        short = short[more.rows[:, -1] < 0]
    return Past(Searched(found, searched.recall, searched.method), passed)


def _share(barred: CandidateFilter, *, queries: int, rows: int) -> float:
    """The share of the corpus that is barred for a query, at random."""
    if not queries:
        return 0.0
    random = np.random.default_rng(0)
    drawn = random.integers(rows, size=(min(queries, _BLOCK), _SAMPLED))
    which = np.sort(random.choice(queries, len(drawn), replace=False))
    return float(_bars(barred, which, drawn, np.zeros(drawn.shape, np.float32)).mean())


def _allowed(found: Found, barred: CandidateFilter, anchors: npt.NDArray[Any], k: int) -> tuple[Found, Int64]:
    """The first k of each row that are not barred, and how many barred ones are before the last of them."""
    kept, passed = nothing_found(len(anchors), k), np.zeros(len(anchors), np.int64)
    for part in blocks(len(anchors), _BLOCK):
        rows, scores = found.rows[part], found.scores[part]
        there = rows >= 0
        gone = there & _bars(barred, anchors[part], rows, scores)
        place = np.cumsum(there & ~gone, axis=1) - 1
        owner, column = np.nonzero(there & ~gone & (place < k))
        kept.rows[part][owner, place[owner, column]] = rows[owner, column]
        kept.scores[part][owner, place[owner, column]] = scores[owner, column]
        passed[part] = np.count_nonzero(gone & (place < k - 1), axis=1)
    return kept, passed


def _bars(barred: CandidateFilter, anchors: npt.NDArray[Any], rows: Int64, scores: Float32) -> Bool:
    nothing = np.full(len(anchors), np.nan, np.float32)
    return barred.remove(Candidates(anchors, rows, scores, nothing, rows >= 0))
