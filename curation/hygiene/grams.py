"""The n-grams of evaluation rows, and which texts hold them. What follows is in ``contamination``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.hygiene.shingles import Shingles, UInt64, Words, ngrams

__all__ = ["LONGEST_QUOTE", "GramTable", "first_of_equal", "quote"]

Int64 = npt.NDArray[np.int64]

LONGEST_QUOTE: Final = 400
"""Characters of a matched text that are told."""


class GramTable(NamedTuple):
    """The n-grams of one size, sorted, each with the evaluation row it comes from."""

    size: int
    grams: UInt64
    owners: Int64
    totals: Int64
    """How many n-grams each evaluation row has here."""
    filter: npt.NDArray[np.bool_]
    """Whether any n-gram begins with these bits: turns nearly every other n-gram away at once."""

    @staticmethod
    def of(size: int, parts: Sequence[tuple[UInt64, Int64]], owners: int) -> GramTable:
        grams = np.concatenate([part[0] for part in parts])
        owner = np.concatenate([part[1] for part in parts])
        order = np.argsort(grams, kind="stable")
        grams, owner = grams[order], owner[order]
        bits = max(10, min(26, int(np.ceil(np.log2(16 * len(grams) + 1)))))
        present = np.zeros(1 << bits, dtype=bool)
        present[grams >> np.uint64(64 - bits)] = True
        return GramTable(size, grams, owner, np.bincount(owner, minlength=owners), present)

    def best(self, words: Words, min_overlap: float) -> pl.DataFrame:
        """For each text the evaluation row of which it holds most, with the longest run of shared words."""
        grams = ngrams(words, self.size)
        hits = self._lookup(grams)
        counts = hits.group_by("position", "owner").agg(shared=pl.col("gram").n_unique())
        totals = pl.Series(self.totals[counts["owner"].to_numpy()])
        counts = counts.with_columns(score=pl.col("shared") / totals).filter(pl.col("score") >= min_overlap)
        best = counts.sort("position", "score", "owner", descending=[False, True, False])
        best = best.unique("position", keep="first", maintain_order=True).select("position", "owner", "score")
        if not best.height:
            return best.with_columns(start=pl.lit(0, pl.Int64), stop=pl.lit(0, pl.Int64))
        # Consecutive n-grams of the match are one run.
        runs = hits.join(best, on=["position", "owner"]).sort("position", "place")
        runs = runs.with_columns(run=pl.col("place") - pl.int_range(pl.len()).over("position"))
        spans = runs.group_by("position", "run").agg(
            start=pl.col("place").min(), stop=pl.col("place").max() + self.size
        )
        longest = spans.sort("position", pl.col("stop") - pl.col("start"), "start", descending=[False, True, False])
        longest = longest.unique("position", keep="first", maintain_order=True)
        return best.join(longest.select("position", "start", "stop"), on="position", maintain_order="left")

    def _lookup(self, grams: Shingles) -> pl.DataFrame:
        """Each n-gram that an evaluation row has: text, place in it, evaluation row."""
        bits = int(np.log2(len(self.filter)))
        near = np.flatnonzero(self.filter[grams.hashes >> np.uint64(64 - bits)])
        values = grams.hashes[near]
        low = np.searchsorted(self.grams, values, side="left")
        count = np.searchsorted(self.grams, values, side="right") - low
        place = np.repeat(near, count)
        ends = np.cumsum(count)
        total = int(ends[-1]) if len(ends) else 0
        entry = np.arange(total) - np.repeat(ends - count, count) + np.repeat(low, count)
        position = np.searchsorted(grams.offsets, place, side="right") - 1
        return pl.DataFrame(
            {
                "position": position.astype(np.int64),
                "place": place - grams.offsets[position],
                "owner": self.owners[entry],
                "gram": grams.hashes[place],
            }
        )


def first_of_equal(grams: Shingles) -> Int64:
    """(n,) for each text the first one with the same n-grams in the same order."""
    firsts: dict[bytes, int] = {}
    ends = grams.offsets
    return np.array(
        [firsts.setdefault(grams.hashes[ends[i] : ends[i + 1]].tobytes(), i) for i in range(len(ends) - 1)],
        dtype=np.int64,
    )


def quote(data: npt.NDArray[np.uint8], offsets: Int64, words: Words, position: int, start: int, stop: int) -> str:
    """The words from ``start`` up to ``stop`` of a text, as they stand there in lower case."""
    first, last = int(words.offsets[position]), int(words.offsets[position + 1])
    begin = int(words.starts[first + start])
    end = int(words.starts[first + stop]) if first + stop < last else int(offsets[position + 1] - offsets[position])
    piece = data[int(offsets[position]) + begin : int(offsets[position]) + end].tobytes()
    text = piece.decode("utf-8", "replace").strip()
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"
