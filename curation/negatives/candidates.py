"""Documents that may be among the k nearest of some queries, and the bounds of their scores.

What becomes a candidate is decided in ``narrow``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.negatives.inputs import Float32, Int64, blocks

__all__ = ["Candidates", "Nearest"]

_SCORED_AT_ONCE: Final = 512
"""Pairs whose vectors fit in the caches of one core."""


class Nearest(NamedTuple):
    """The k best, best first and of equal ones the lower row first."""

    rows: Int64
    """(n, k), −1 where there are fewer."""
    scores: Float32
    """(n, k), −inf beside −1."""


class _Entries(NamedTuple):
    """Pairs of a query and a document, end to end."""

    query: npt.NDArray[np.uint16]
    row: npt.NDArray[np.int32]
    low: Float32
    """What the score is at least."""
    high: Float32
    """What it is at most; equal to ``low`` once it is known."""

    def at(self, which: Any) -> _Entries:
        return _Entries(*(values[which] for values in self))


_NONE: Final = _Entries(
    np.empty(0, np.uint16), np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.float32)
)


class Candidates:
    """Of at most 65,536 queries."""

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        self._kept = _NONE
        self._new: list[_Entries] = []
        self._counts = np.zeros(queries, np.int64)
        self.limit = np.full(queries, -np.inf, np.float32)
        """(n,) of documents that score less than this nothing is known."""
        self.undecided = np.zeros(queries, np.bool_)
        """(n,) queries of which too many documents were candidates; theirs are not kept."""

    @property
    def _crowd(self) -> int:
        """Candidates of a query beyond which it is time to raise its limit."""
        return 8 * self._k + 2_048

    def __len__(self) -> int:
        return int(self._counts.sum())

    @property
    def crowded(self) -> bool:
        """Whether a query has more candidates than it should."""
        return int(self._counts.max(initial=0)) > self._crowd

    def add(self, query: npt.NDArray[np.uint16], row: npt.NDArray[np.int32], low: Float32, high: Float32) -> None:
        """More candidates, no pair of a query and a document twice."""
        self._new.append(_Entries(query, row, low, high))
        self._counts += np.bincount(query, minlength=len(self._counts))

    def tighten(self, rank: int | None = None) -> None:
        """Raises the limits, and drops what is below them; gives queries up that stay crowded.

        Args:
            rank: the limit is the so many-th best of what scores are at least. By default k: then nothing is
                dropped that may be among the k best. With less, that is a guess, which :meth:`check` looks into.
        """
        rank = self._k if rank is None else min(rank, self._k)
        entries = _Entries(*map(np.concatenate, zip(self._kept, *self._new, strict=True)))
        self._new.clear()
        # One number to sort by, which is ten times as quick as a table of all queries: query, then falling scores.
        falling = _in_order(entries.low.view(np.int32)).view(np.uint32) ^ np.uint32(0x7FFFFFFF)
        keys = entries.query.astype(np.uint64) << np.uint64(32) | falling
        keys.sort()
        enough = np.flatnonzero(self._counts >= rank)
        last = keys[(np.cumsum(self._counts) - self._counts)[enough] + rank - 1].astype(np.uint32)
        found = _in_order((last ^ np.uint32(0x7FFFFFFF)).view(np.int32)).view(np.float32)
        self.limit[enough] = np.maximum(self.limit[enough], found)
        self._keep(entries.at(entries.high >= self.limit[entries.query]))
        self.give_up(self._counts > self._crowd // 2)

    def give_up(self, which: npt.NDArray[np.bool_]) -> None:
        """Leaves the queries of a mask undecided, which of no more documents become candidates."""
        if which.any():
            self.undecided |= which
            self.limit[which] = np.inf
            self._counts[which] = 0
            self._kept = self._kept.at(~which[self._kept.query])

    def check(self, nearest: Nearest) -> None:
        """Gives the queries up whose limit was guessed too high: of the k best some may be unknown."""
        self.give_up((nearest.scores[:, -1] < self.limit) & np.isfinite(self.limit))

    def settle(self, queries: Float32, documents: Float32, first: int) -> Nearest:
        """Scores in float32 what is in doubt, and keeps the k best; :meth:`check` says whether all are known.

        Args:
            queries: (n, d).
            documents: (r, d) corpus rows from ``first`` on; what is in doubt is among them.
            first: corpus row of the first document.
        """
        self.tighten()
        # Stable sorting of 16-bit numbers is a radix sort.
        query, row, low, high = self._kept.at(np.argsort(self._kept.query, kind="stable"))
        doubtful = np.flatnonzero(low < high)
        for part in blocks(len(doubtful), _SCORED_AT_ONCE):
            at = doubtful[part]
            low[at] = np.einsum("ed,ed->e", queries[query[at]], documents[row[at] - first])
        # One number to sort by: falling scores, then rising rows.
        rising = _in_order((low + np.float32(0)).view(np.int32))
        table = self._table(query, (~rising).astype(np.int64) << 32 | row, np.iinfo(np.int64).max)
        best = np.sort(table, axis=1)[:, : self._k]
        known = best < np.iinfo(np.int64).max
        self._counts = known.sum(axis=1)
        rows = np.where(known, best & 0x7FFFFFFF, -1)
        scores = _in_order(~(best >> 32).astype(np.int32)).view(np.float32)
        scores[~known] = -np.inf
        flat = scores[known]
        self._kept = _Entries(np.nonzero(known)[0].astype(np.uint16), rows[known].astype(np.int32), flat, flat)
        return self._padded(rows, scores)

    def _padded(self, rows: Int64, scores: Float32) -> Nearest:
        missing = ((0, 0), (0, self._k - rows.shape[1]))
        return Nearest(np.pad(rows, missing, constant_values=-1), np.pad(scores, missing, constant_values=-np.inf))

    def _keep(self, entries: _Entries) -> None:
        self._kept = entries
        self._counts = np.bincount(entries.query, minlength=len(self._counts))

    def _table(self, query: npt.NDArray[np.uint16], values: Any, empty: Any) -> Any:
        """(n, most of one query) the values of each query, which lie end to end, side by side."""
        counts = np.bincount(query, minlength=len(self._counts))
        table = np.full((len(counts), int(counts.max(initial=0))), empty)
        place = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        table[query, place] = values
        return table


def _in_order(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The bits of floats as numbers in the same order, and back: of negative floats they are in reverse."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
