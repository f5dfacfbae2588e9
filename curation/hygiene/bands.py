"""MinHash-LSH: which texts may have a near-duplicate, and how similar two of them are.

Signatures and the search for texts that share a band are rensa's (R-MinHash, in Rust); only those texts are looked
at further. Bands are chosen so that a pair exactly at the threshold is proposed with probability 0.98 or more. What
becomes of what is proposed is in :mod:`curation.hygiene.near`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.hygiene.shingles import Shingles, mix, odd_numbers, shingle

if TYPE_CHECKING:
    import rensa

__all__ = ["NUM_PERM", "BandKeys", "Bands", "Proposed", "band_keys", "jaccard", "plan_bands", "propose"]

NUM_PERM: Final = 128
_RECALL_AT_THRESHOLD: Final = 0.98

Int64 = npt.NDArray[np.int64]


class Bands(NamedTuple):
    """A banding of signatures (Leskovec et al., Mining of Massive Datasets, section 3.4.2)."""

    bands: int
    rows: int

    def proposed(self, similarity: float) -> float:
        """The probability that a pair of this similarity shares a band."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


class BandKeys(Protocol):
    """Who computes band keys: :func:`band_keys` itself, or workers elsewhere that call it on parts."""

    def __call__(self, texts: pl.Series, *, plan: Bands, n: int, seed: int) -> npt.NDArray[np.uint64]: ...


def plan_bands(threshold: float, *, num_perm: int = NUM_PERM) -> Bands:
    """The longest bands that still propose a pair at the threshold with probability 0.98."""
    plans = [Bands(num_perm // rows, rows) for rows in range(num_perm, 0, -1)]
    return next((plan for plan in plans if plan.proposed(threshold) >= _RECALL_AT_THRESHOLD), plans[-1])


def jaccard(a: set[int], b: set[int]) -> float:
    """|a ∩ b| / |a ∪ b|; two empty sets are equal."""
    shared = len(a & b)
    union = len(a) + len(b) - shared
    return shared / union if union else 1.0


class Proposed:
    """The texts that share a band with another one.

    Attributes:
        texts: their positions among all texts.
        buckets: for each of them the numbers of the buckets that it shares.
    """

    def __init__(
        self, texts: Int64, shingles: Shingles, signatures: npt.NDArray[np.uint64], plan: Bands, threshold: float
    ) -> None:
        self.texts = texts
        self.buckets = _buckets(signatures, plan)
        self._shingles = shingles
        self._signatures = signatures
        self._sets: dict[int, set[int]] = {}
        width = plan.bands * plan.rows
        self._least = threshold - 4 * (threshold * (1 - threshold) / width) ** 0.5

    def likely(self, position: int, candidates: set[int]) -> list[int]:
        """The candidates whose signatures agree in nearly the threshold's share of places, or more.

        Four standard deviations below it are allowed for: three in 100,000 duplicates are lost here.
        """
        if not candidates:
            return []
        others = np.fromiter(candidates, dtype=np.int64, count=len(candidates))
        shares = (self._signatures[others] == self._signatures[position]).mean(axis=1)
        found: list[int] = others[shares >= self._least].tolist()
        return found

    def similarity(self, a: int, b: int) -> float:
        """The exact Jaccard index of two of the texts."""
        return jaccard(self._set(a), self._set(b))

    def _set(self, position: int) -> set[int]:
        if position not in self._sets:
            start, end = self._shingles.offsets[position : position + 2]
            self._sets[position] = set(self._shingles.hashes[start:end].tolist())
        return self._sets[position]


def propose(
    texts: pl.Series,
    *,
    threshold: float,
    n: int = 3,
    seed: int = 0,
    num_perm: int = NUM_PERM,
    keys: BandKeys | None = None,
) -> Proposed:
    """The texts that may have a near-duplicate."""
    import rensa

    plan = plan_bands(threshold, num_perm=num_perm)
    if keys is not None:
        flagged = _sharing(keys(texts, plan=plan, n=n, seed=seed))
        chosen = shingle(texts.gather(flagged), n=n)
    else:
        shingles = shingle(texts, n=n)
        search = rensa.RMinHashLSH(threshold=threshold, num_perm=plan.bands * plan.rows, num_bands=plan.bands)
        digests = _digests(shingles, plan, seed)
        flags = search.query_duplicate_flags_matrix_one_shot(digests) if len(texts) else []
        flagged = np.flatnonzero(np.array(flags, dtype=bool))
        chosen = _take(shingles, flagged)
    return Proposed(flagged, chosen, _signatures(chosen, plan, seed), plan, threshold)


def band_keys(texts: pl.Series, *, plan: Bands, n: int, seed: int) -> npt.NDArray[np.uint64]:
    """(N, bands): a number for each band of each text's signature; equal bands have equal numbers."""
    return _keys(_signatures(shingle(texts, n=n), plan, seed), plan)


def _digests(of: Shingles, plan: Bands, seed: int) -> rensa.RMinHashDigestMatrix:
    import rensa

    offsets = of.offsets.astype(np.uint64)
    return rensa.RMinHash.digest_matrix_from_flat_token_hashes(of.hashes, offsets, plan.bands * plan.rows, seed)


def _signatures(of: Shingles, plan: Bands, seed: int) -> npt.NDArray[np.uint64]:
    count = len(of.offsets) - 1
    rows = _digests(of, plan, seed).to_rows() if count else []
    return np.array(rows, dtype=np.uint64).reshape(count, plan.bands * plan.rows)


def _sharing(keys: npt.NDArray[np.uint64]) -> Int64:
    """The texts that have a band in common with another one."""
    shares = np.zeros(len(keys), dtype=bool)
    for band in range(keys.shape[1]):
        _, numbers, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        shares |= counts[numbers] > 1
    return np.flatnonzero(shares)


def _keys(signatures: npt.NDArray[np.uint64], plan: Bands) -> npt.NDArray[np.uint64]:
    banded = signatures.reshape(len(signatures), plan.bands, plan.rows)
    # Bands whose hashes collide propose a pair in vain, no more.
    return mix((banded * odd_numbers(plan.rows)).sum(axis=2, dtype=np.uint64))


def _take(shingles: Shingles, rows: Int64) -> Shingles:
    sizes = np.diff(shingles.offsets)[rows]
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    inner = np.arange(total) - np.repeat(ends - sizes, sizes) + np.repeat(shingles.offsets[rows], sizes)
    return Shingles(shingles.hashes[inner], np.concatenate(([0], ends)))


def _buckets(signatures: npt.NDArray[np.uint64], plan: Bands) -> list[list[int]]:
    """For each text the numbers of the buckets that it shares with another text."""
    keys = _keys(signatures, plan)
    shared: list[list[int]] = [[] for _ in range(len(signatures))]
    first = 0
    for band in range(plan.bands):
        _, numbers, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        for text in np.flatnonzero(counts[numbers] > 1).tolist():
            shared[text].append(first + int(numbers[text]))
        first += len(counts)
    return shared
