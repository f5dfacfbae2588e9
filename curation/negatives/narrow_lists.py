"""The k nearest within clusters, scanned in bfloat16. Which clusters a query looks into is in ``reach``.

The documents of a cluster lie side by side and meet the queries that look there, which are gathered for it. Within
its clusters a query finds the exact k nearest: candidates and bounds are those of ``narrow``. Undecided queries are
searched everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.negatives.bfloat16 import PADDED, ROUNDING, Sieve, narrowed, room_for
from curation.negatives.inputs import Embeddings, Float32, Int64, blocks
from curation.negatives.narrow import Batch, Held, NarrowTops
from curation.negatives.reach import Lists
from curation.negatives.search import Found, chunks, exact_search, nothing_found

__all__ = ["ListTops", "search_near"]

_QUERIES: Final = 4_096
"""Of a batch, at most: a third of them look into a cluster, or so."""
_DOCUMENTS: Final = 2_048
_ASKERS: Final = 2_048
"""Of a product, at most: documents and queries."""
_STEP: Final = 128
"""Queries of a product come in multiples of so many: for every new shape oneDNN makes code, as long as several
products take."""
_HELD: Final = 65_536
"""Documents that are held in bfloat16 at once."""
_CROWD: Final = 2
"""Limits are raised when queries have so many times k candidates, on average."""


def search_near(
    queries: Embeddings,
    corpus: Embeddings,
    k: int,
    *,
    lists: Lists,
    limits: Float32,
    distance: float,
    threads: int | None = None,
) -> Found:
    """The k nearest corpus rows of each query, within the clusters that are at most so far away; scores are exact.

    Queries of which bfloat16 leaves too much in doubt are searched everywhere.

    Args:
        queries: (n, d).
        corpus: (m, d); memory holds one chunk of it in float32, 400 MB.
        k: how many to return; more than m pads.
        lists: the clusters of the corpus.
        limits: (n,) from :func:`curation.negatives.narrow.guessed_limits`.
        distance: of :class:`curation.negatives.reach.Reach`.
        threads: how many to use.
    """
    found = nothing_found(len(queries), k)
    for part in blocks(len(queries), ListTops.queries_at_once(k)):
        tops = ListTops(
            queries[part],
            found.rows[part],
            found.scores[part],
            lists=lists,
            limits=limits[part],
            distance=distance,
            threads=threads,
        )
        for chunk, documents in chunks(corpus):
            tops.show(documents, chunk.start)
        left = part.start + tops.undecided()
        if len(left):
            found.rows[left], found.scores[left] = exact_search(queries[left], corpus, k, threads=threads)
    return found


class _Stretch(NamedTuple):
    """Documents of a cluster among those that are held."""

    number: int
    documents: slice
    """A multiple of 64, the last ones zeros."""


class ListTops(NarrowTops):
    """The k best of n queries within their clusters. The corpus is shown as to :class:`NarrowTops`."""

    def __init__(
        self,
        queries: Embeddings,
        rows: Int64,
        scores: Float32,
        *,
        lists: Lists,
        limits: Float32,
        distance: float,
        threads: int | None = None,
    ) -> None:
        """
        Args:
            queries: (n, d).
            rows: as for :class:`NarrowTops`.
            scores: likewise.
            lists: the clusters of the whole corpus.
            limits: (n,) scores that the k best of a query hardly ever fail to reach; that is checked in the end.
            distance: queries look into clusters that are at most so far away.
            threads: how many to use.
        """
        super().__init__(queries, rows, scores, threads=threads, batch=_QUERIES)
        self._lists, self._limits, self._distance = lists, limits, distance
        for batch in self._batches:
            batch.candidates.limit[: len(batch.queries)] = limits[batch.at]

    def show(self, documents: Float32, first: int) -> None:
        """Some corpus rows, from row ``first`` on; what they hold for the queries is in the result afterwards."""
        numbers = self._lists.of_row[first : first + len(documents)]
        room = room_for(_HELD + PADDED * len(self._lists.means), documents.shape[1])
        for rows, stretches in _pieces(numbers):
            made = narrowed(documents, rows=rows, room=room, threads=self._threads)
            held = Held(
                made.vectors, None, rows + np.int32(first), float(made.lost.max()), float(made.length.max())
            )

            def look(batch: Batch, sieve: Sieve, held: Held = held, stretches: list[_Stretch] = stretches) -> None:
                self._look(batch, sieve, held=held, stretches=stretches)
                self._relieve(batch, documents, first)

            self._each(look)
        last = first + len(documents) == len(self._lists.of_row)

        def finish(batch: Batch, _: Sieve) -> None:
            nearest = self._settle(batch, documents, first)
            if last:
                batch.candidates.check(nearest)

        self._each(finish)

    def _look(self, batch: Batch, sieve: Sieve, *, held: Held, stretches: list[_Stretch]) -> None:
        """Each cluster of a piece meets the queries that look there."""
        candidates, error = batch.candidates, batch.error(held)
        candidates.give_up(candidates.limit <= error)
        numbers = np.array([stretch.number for stretch in stretches])
        near = self._lists.distance(batch.queries, self._limits[batch.at], numbers) <= self._distance
        near &= np.isfinite(candidates.limit[: len(batch.queries)])
        asked = _Asked(batch, candidates.limit - error)
        for stretch, looking in zip(stretches, near, strict=True):
            who = np.flatnonzero(looking)
            for part in _alike(len(who), _ASKERS):
                queries, least = asked.by(who[part])
                for at in blocks(stretch.documents.stop - stretch.documents.start, _DOCUMENTS):
                    start, stop = stretch.documents.start + at.start, stretch.documents.start + at.stop
                    place, row, score = sieve.enough(held.narrow[start:stop], queries, least)
                    query = who[part][place]
                    off = error[query] + score * np.float32(ROUNDING)
                    candidates.add(query.astype(np.uint16), held.rows[row + start], score - off, score + off)
        if len(candidates) > _CROWD * self._k * len(batch.queries) or candidates.crowded:
            candidates.tighten()


def _alike(rows: int, most: int) -> Iterator[slice]:
    """Consecutive slices of ``range(rows)``, as few as may be and of one length, but the last."""
    parts = max(1, -(-rows // most))
    return blocks(rows, max(1, -(-rows // parts)))


class _Asked:
    """Gathers some queries of a batch, again and again in the same place."""

    def __init__(self, batch: Batch, limits: Float32) -> None:
        import torch

        room = room_for(_ASKERS, batch.queries.shape[1])
        room[:] = 0
        self._batch, self._limits = batch, limits
        self._queries = torch.from_numpy(room).view(torch.bfloat16)

    def by(self, who: Int64) -> tuple[Any, Float32]:
        """(w, d) their vectors and (w,) limits, made up to a multiple of ``_STEP`` by some that want nothing."""
        import torch

        count = len(who) + -len(who) % _STEP
        torch.index_select(self._batch.narrow, 0, torch.from_numpy(who), out=self._queries[: len(who)])
        limits = np.full(count, np.inf, np.float32)
        limits[: len(who)] = self._limits[who]
        return self._queries[:count], limits


def _pieces(numbers: npt.NDArray[np.int32]) -> Iterator[tuple[npt.NDArray[np.int32], list[_Stretch]]]:
    """Rows by cluster, so many at a time: (rows, −1 for padding; the clusters in them).

    Args:
        numbers: (r,) the cluster of each row.
    """
    order = np.argsort(numbers.astype(np.uint16) if numbers.max(initial=0) < 65_536 else numbers, kind="stable")
    for piece in blocks(len(order), _HELD):
        inside = order[piece]
        present, starts = np.unique(numbers[inside], return_index=True)
        rows, stretches, at = [], [], 0
        for number, own in zip(present.tolist(), np.split(inside, starts[1:]), strict=True):
            padding = -len(own) % PADDED
            rows.append(np.pad(own.astype(np.int32), (0, padding), constant_values=-1))
            stretches.append(_Stretch(number, slice(at, at + len(rows[-1]))))
            at += len(rows[-1])
        yield np.concatenate(rows), stretches
