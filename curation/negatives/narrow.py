"""The exact k nearest, scanned in bfloat16 and decided in float32: several times faster, and nothing is lost.

A score in bfloat16 is off by at most a bound that is known. A document stays a candidate while its score plus the
bound reaches the k-th best of the lower bounds; candidates are then scored in float32. While few documents have
been seen, a limit is guessed from those, and the guess is checked in the end. Products are in ``bfloat16``,
candidates in ``candidates``.

``search`` scans in float32 where the processor does not multiply bfloat16; so it does for queries whose limit was
guessed too high, of which bfloat16 leaves too many documents in doubt (equal ones, say), or that are like nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np

from curation.negatives.bfloat16 import PADDED, ROUNDING, SLACK, Sieve, narrowed, room_for
from curation.negatives.candidates import Candidates, Nearest
from curation.negatives.inputs import Embeddings, Float32, Int64, blocks
from curation.negatives.threads import default_threads, over_shards

__all__ = ["Batch", "Held", "NarrowTops", "guessed_limits"]

_QUERIES: Final = 1_024
_DOCUMENTS: Final = 2_048
"""Of a product: its scores, two bytes each, stay in the caches of one core."""
_HELD: Final = 65_536
"""Documents that are held in bfloat16 at once: 50 MB of width 384."""
_PIECES: Final = 16
"""So many at least, where there are documents enough."""
_SAMPLE: Final = 16_384
"""Documents that give the first limits."""
_GROWTH: Final = 2
"""Limits are raised when so many times the documents have been seen."""
_GROUP: Final = 64
"""Documents of the sample of which the best counts: at most, so that there are some times k groups."""
_BUFFER_BYTES: Final = 2**28
_ENTRY_BYTES: Final = 14


class Held(NamedTuple):
    """Documents in bfloat16."""

    narrow: Any
    """(r and some zeros, d) tensor."""
    sample: Any
    """(s, d) tensor: some of them."""
    rows: Any
    """(r,) their corpus rows: a range, or an array."""
    lost: float
    """The greatest distance between a document and what is left of it in bfloat16."""
    length: float
    """Of the longest document; 1 but for integers."""


class Batch:
    """Some queries, and what is known of their nearest."""

    def __init__(self, queries: Float32, at: slice, k: int) -> None:
        made = narrowed(queries, threads=1)
        padding = (0, len(made.vectors) - len(queries))
        self.queries, self.at, self.narrow = queries, at, made.vectors
        self.lost, self.length = np.pad(made.lost, padding), np.pad(made.length, padding)
        self.candidates = Candidates(len(made.vectors), k)
        self.candidates.limit[len(queries) :] = np.inf
        self.seen, self.enough = 0, 0.0
        """Documents so far, and those after which it is time to raise the limits."""

    def error(self, held: Held) -> Float32:
        """(w,) how far scores may be off before they are rounded: |xy − x̂ŷ| ≤ |x − x̂||y| + |x̂||y − ŷ|."""
        error: Float32 = self.lost * np.float32(held.length) + self.length * np.float32(
            1.01 * held.lost + SLACK * held.length
        )
        return error


class NarrowTops:
    """The k best of n queries. The corpus is shown chunk by chunk, from its first row to its last."""

    def __init__(
        self,
        queries: Embeddings,
        rows: Int64,
        scores: Float32,
        *,
        threads: int | None = None,
        batch: int = _QUERIES,
    ) -> None:
        """
        Args:
            queries: (n, d).
            rows: (n, k) takes the best documents, best first and of equal ones the lower row first; −1 now.
            scores: (n, k) takes their scores; minus infinity now.
            threads: how many to use.
            batch: how many queries to treat at once, at most; each thread has as many batches as the others.
        """
        self._rows, self._scores, self._k, self._threads = rows, scores, rows.shape[1], threads
        self._shown = 0
        wide = np.ascontiguousarray(queries, dtype=np.float32)
        share = max(1, -(-len(wide) // (threads or default_threads())))
        most = -(-share // -(-share // batch))
        self._most = most + -most % (2 * PADDED)
        self._batches = [Batch(wide[at], at, self._k) for at in blocks(len(wide), self._most)]

    @staticmethod
    def queries_at_once(k: int) -> int:
        """How many queries fit in the memory that candidates may take."""
        return max(_QUERIES, _BUFFER_BYTES // (_ENTRY_BYTES * (2 * k + 64)))

    def show(self, documents: Float32, first: int) -> None:
        """Some corpus rows, from row ``first`` on; what they hold for the queries is in the result afterwards."""
        pieces = max(-(-len(documents) // _HELD), min(_PIECES, len(documents) // _DOCUMENTS), 1)
        total = self._shown + len(documents)
        room = room_for(-(-len(documents) // pieces), documents.shape[1])
        for piece in range(pieces):
            # Every so many rows, so that a corpus in some order is met in none: what was seen tells of the rest.
            rows = range(first + piece, first + len(documents), pieces)
            held = _held(documents[piece::pieces], rows, room, threads=self._threads)
            self._each(partial(self._scan, held=held, total=total))
            self._each(lambda batch, _: self._relieve(batch, documents, first))
        self._each(lambda batch, _: batch.candidates.check(self._settle(batch, documents, first)))
        self._shown = total

    def undecided(self) -> Int64:
        """The queries that are to be searched in another way; their results mean nothing."""
        own = [batch.at.start + np.flatnonzero(batch.candidates.undecided) for batch in self._batches]
        return np.concatenate([np.empty(0, np.int64), *own])

    def _each(self, work: Callable[[Batch, Sieve], None]) -> None:
        """Each thread takes the next batch when it is done with one: some take longer than others."""
        waiting, lock = iter(self._batches), Lock()

        def some(_: slice) -> None:
            sieve = Sieve(_DOCUMENTS, self._most)
            while True:
                with lock:
                    batch = next(waiting, None)
                if batch is None:
                    return
                work(batch, sieve)

        over_shards(some, len(self._batches), threads=self._threads)

    def _scan(self, batch: Batch, sieve: Sieve, *, held: Held, total: int) -> None:
        candidates, error = batch.candidates, batch.error(held)
        if not batch.seen:
            _start(batch, held, sieve, rank=_rank(self._k, len(held.sample) / total), k=self._k)
        # Of negative floats the bits are in reverse order.
        candidates.give_up(candidates.limit <= error)
        for block in blocks(len(held.rows), _DOCUMENTS):
            some = held.narrow[block.start : block.start + _DOCUMENTS]
            query, row, score = sieve.enough(some, batch.narrow, candidates.limit - error)
            if block.stop == len(held.rows):
                query, row, score = (of[row < block.stop - block.start] for of in (query, row, score))
            off = error[query] + score * np.float32(ROUNDING)
            row = (row + np.int32(block.start)) * np.int32(held.rows.step) + np.int32(held.rows.start)
            candidates.add(query, row, score - off, score + off)
            if candidates.crowded:
                candidates.tighten()
        batch.seen += len(held.rows)
        if batch.seen >= batch.enough:
            candidates.tighten(_rank(self._k, batch.seen / total))
            batch.enough = _GROWTH * batch.seen

    def _relieve(self, batch: Batch, documents: Float32, first: int) -> None:
        """Settles early where too much is in doubt to be held."""
        if len(batch.candidates) > 2 * (2 * self._k + 64) * len(batch.queries):
            self._settle(batch, documents, first)

    def _settle(self, batch: Batch, documents: Float32, first: int) -> Nearest:
        nearest = batch.candidates.settle(batch.queries, documents, first)
        self._rows[batch.at], self._scores[batch.at] = (of[: len(batch.queries)] for of in nearest)
        return nearest


def guessed_limits(queries: Embeddings, corpus: Embeddings, k: int, *, threads: int | None = None) -> Float32:
    """(n,) scores that the k best of each query hardly ever fail to reach, guessed from a sample of the corpus.

    Minus infinity where the sample says nothing. The same whatever the number of threads.
    """
    every = max(1, len(corpus) // _SAMPLE)
    sample = np.ascontiguousarray(corpus[::every][:_SAMPLE], dtype=np.float32)
    held = _held(sample, range(len(sample)), None, threads=threads)
    limits = np.empty(len(queries), np.float32)
    parts = list(blocks(len(queries), _QUERIES))

    def work(shard: slice) -> None:
        sieve = Sieve(_DOCUMENTS, _QUERIES)
        for part in parts[shard]:
            batch = Batch(np.ascontiguousarray(queries[part], dtype=np.float32), part, k)
            _start(batch, held, sieve, rank=_rank(k, len(sample) / len(corpus), sure=3), k=k)
            limits[part] = batch.candidates.limit[: part.stop - part.start]

    over_shards(work, len(parts), threads=threads)
    return limits


def _rank(k: int, share: float, *, sure: int = 4) -> int:
    """With a share of the documents seen, the k-th best of all is hardly ever beyond this place among them.

    How many of the k best are seen is about Poisson distributed; ``sure`` standard deviations and as many more
    leave one query in a hundred thousand with four, one in some thousand with three.
    """
    expected = k * share
    return min(k, math.ceil(expected + sure * math.sqrt(expected) + sure))


def _held(documents: Float32, rows: range, room: Any, *, threads: int | None) -> Held:
    made = narrowed(documents, room=room, threads=threads)
    every = max(1, len(documents) // _SAMPLE)
    sample = made.vectors[: len(documents) : every].contiguous()
    return Held(made.vectors, sample, rows, float(made.lost.max()), float(made.length.max()))


def _start(batch: Batch, held: Held, sieve: Sieve, *, rank: int, k: int) -> None:
    """Gives each query a limit, so that few of the first documents become candidates.

    The best but so many of the best of some groups is no better than that of all.
    """
    group = max(1, min(_GROUP, len(held.sample) // (4 * k)))
    best = [
        sieve.best(held.sample[part], batch.narrow, group)
        for part in blocks(len(held.sample) // group * group, _DOCUMENTS // group * group)
    ]
    tops = np.concatenate(best, axis=1)
    if tops.shape[1] >= rank:
        last = tops.shape[1] - rank
        found = np.partition(tops, last, axis=1)[:, last]
        off = batch.error(held) + np.abs(found) * np.float32(ROUNDING)
        batch.candidates.limit = np.maximum(batch.candidates.limit, found - off)
