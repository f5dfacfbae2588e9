"""Near-duplicates among pairs looked at again, answer by answer: which are repeats, and which say the opposite.

The texts of a pair as one are nearly the same whichever answer is chosen, and where a prompt is long whatever the
answers are. How the duplicates are found is in ``near`` and ``semantic``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.hygiene.bands import jaccard
from curation.hygiene.groups import Links
from curation.hygiene.semantic import encode_whole
from curation.hygiene.shingles import shingle
from curation.models.protocols import Encoder

__all__ = ["Opposed", "SideSimilarity", "cosine_similarity", "jaccard_similarity", "part_opposed"]

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SideSimilarity = Callable[[pl.Series, Int64, Int64], Float64]
"""How similar the texts at the first positions are to those at the second ones."""
_ROUNDING: Final = 1e-6


class Opposed(NamedTuple):
    """Duplicates, and rows that contradict each other."""

    links: Links
    """Those that were given, without the rows below and without those that are no repeat after all."""
    opposite: Int64
    """(n,): the position of a row that says the opposite, −1 where none does."""


def part_opposed(
    links: Links, *, chosen: pl.Series, rejected: pl.Series, similarity: SideSimilarity, threshold: float
) -> Opposed:
    """Tells repeats from contradictions among the rows that were found to nearly repeat another one.

    A row is the other one turned round when its answers are nearer to those of the other side than to those of
    their own, both together and the farther of the two; so neither two errors put into one answer nor a chain
    A > B > C is taken for it. It is a contradiction when each answer reaches the threshold with the one it is
    nearer to, and else no duplicate at all. Which of two contradicting labels is right is unknown: both rows go,
    and so do those that repeat the one that was kept. A row of which an answer is less than half as near as the
    threshold asks has another answer, and is no duplicate either.

    Args:
        links: of n rows.
        chosen: n texts; ``rejected``: likewise.
        similarity: of the method by which the links were found, from 0 or below to 1.
        threshold: least similarity of duplicates.
    """
    opposite = np.full(len(links.kept_by), -1, dtype=np.int64)
    rows = np.flatnonzero(links.kept_by >= 0)
    if not len(rows):
        return Opposed(links, opposite)
    kept = links.kept_by[rows]
    count = len(chosen)
    texts = pl.concat([chosen.cast(pl.String), rejected.cast(pl.String)])
    first = np.concatenate((rows, rows + count))
    same = similarity(texts, first, np.concatenate((kept, kept + count))).reshape(2, -1)
    other = similarity(texts, first, np.concatenate((kept + count, kept))).reshape(2, -1)
    # Square roots, since of a distance within a sphere or between sets two steps aside are 1.4 as far as one.
    straight, crossed = (np.sqrt(np.clip(1 - scores, 0, None)) for scores in (same, other))
    nearer = crossed.sum(axis=0) < straight.sum(axis=0) - _ROUNDING
    turned = nearer & (crossed.max(axis=0) < straight.max(axis=0) - _ROUNDING)
    against = turned & (other.min(axis=0) >= threshold - _ROUNDING)
    opposite[rows[against]] = kept[against]
    # The first row that contradicts a kept one; what repeats the kept one says what it says.
    disputed, at = np.unique(kept[against], return_index=True)
    opposite[disputed] = rows[against][at]
    another = ~turned & (same.min(axis=0) < threshold / 2)
    follows = ~turned & ~another & (opposite[kept] >= 0)
    opposite[rows[follows]] = opposite[kept[follows]]
    gone = rows[turned | another | follows]
    kept_by, scores = links.kept_by.copy(), links.similarity.copy()
    kept_by[gone] = -1
    scores[gone] = np.nan
    return Opposed(Links(kept_by, scores), opposite)


def jaccard_similarity(ngram: int) -> SideSimilarity:
    """The Jaccard index of the sets of word n-grams, as in ``near``."""

    def similarity(texts: pl.Series, first: Int64, second: Int64) -> Float64:
        used, places = np.unique(np.concatenate((first, second)), return_inverse=True)
        grams = shingle(texts.gather(used), n=ngram)
        ends = grams.offsets
        sets = [set(grams.hashes[ends[i] : ends[i + 1]].tolist()) for i in range(len(used))]
        pairs = places.reshape(2, -1).T.tolist()
        return np.array([jaccard(sets[a], sets[b]) for a, b in pairs], dtype=np.float64)

    return similarity


def cosine_similarity(encoder: Encoder) -> SideSimilarity:
    """The cosine of embeddings, as in ``semantic``."""

    def similarity(texts: pl.Series, first: Int64, second: Int64) -> Float64:
        used, places = np.unique(np.concatenate((first, second)), return_inverse=True)
        vectors, _ = encode_whole(texts.gather(used).to_list(), encoder)
        a, b = places.reshape(2, -1)
        cosines: Float64 = np.einsum("ij,ij->i", vectors[a], vectors[b]).astype(np.float64)
        return cosines

    return similarity
