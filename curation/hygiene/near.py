"""Near-duplicates: MinHash-LSH proposes, exact Jaccard similarity decides. Meaning is for ``semantic``.

The similarity of two texts is the Jaccard index of their sets of word n-grams (``shingles``). What ``bands``
proposes is compared exactly, so no pair below the threshold is ever called a duplicate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.hygiene.bands import NUM_PERM, BandKeys, Proposed, propose
from curation.hygiene.groups import Links, UnionFind

__all__ = ["Refused", "near_duplicates", "near_groups", "tie_near"]

Int64 = npt.NDArray[np.int64]


def near_duplicates(
    texts: pl.Series,
    *,
    threshold: float,
    order: Int64,
    n: int = 3,
    groups: Int64 | None = None,
    seed: int = 0,
    num_perm: int = NUM_PERM,
    keys: BandKeys | None = None,
) -> Links:
    """Which texts go because a better one, at least ``threshold`` similar, stays.

    Texts are taken in ``order``; one goes when a text that stays is a near-duplicate of it. So whatever
    goes is at least ``threshold`` similar to the text it is said to duplicate, and of the texts that stay
    no two are near-duplicates, but for pairs that no band proposed.

    Args:
        texts: N texts, no nulls.
        threshold: least Jaccard similarity of duplicates, in (0, 1].
        order: the N positions, from the one to keep most.
        n: words of an n-gram.
        groups: N numbers; only texts of one group are compared.
        seed: of the hash functions.
        num_perm: length of a signature.
        keys: who computes band keys, where it is not done here. The result is the same.
    """
    found = propose(texts, threshold=threshold, n=n, seed=seed, num_perm=num_perm, keys=keys)
    group = np.zeros(len(texts), dtype=np.int64) if groups is None else groups
    rank = np.empty(len(texts), dtype=np.int64)
    rank[order] = np.arange(len(texts))
    kept_by = np.full(len(texts), -1, dtype=np.int64)
    similarity = np.full(len(texts), np.nan)
    kept_in: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for position in np.argsort(rank[found.texts], kind="stable").tolist():
        text = int(found.texts[position])
        buckets = [(bucket, int(group[text])) for bucket in found.buckets[position]]
        candidates = {other for bucket in buckets for other in kept_in[bucket]}
        scores = [(found.similarity(position, other), other) for other in found.likely(position, candidates)]
        best = max((score for score, _ in scores), default=0.0)
        if scores and best >= threshold:
            # Of several equally similar ones, the one to keep most.
            equals = [int(found.texts[other]) for score, other in scores if score == best]
            kept_by[text], similarity[text] = min(equals, key=lambda other: int(rank[other])), best
        else:
            for bucket in buckets:
                kept_in[bucket].append(position)
    return Links(kept_by, similarity)


def near_groups(
    texts: pl.Series, *, threshold: float, n: int = 3, seed: int = 0, num_perm: int = NUM_PERM
) -> Int64:
    """A group number for each text: texts joined by a chain of near-duplicates share one.

    What must not be on two sides of a split belongs here; what is dropped, in :func:`near_duplicates`.
    """
    groups = UnionFind(len(texts))
    found = propose(texts, threshold=threshold, n=n, seed=seed, num_perm=num_perm)
    tie_near(found, groups, range(len(found.texts)), threshold=threshold)
    return groups.labels()


class Refused(NamedTuple):
    """Two near texts that were not to be tied."""

    text: int
    near: int
    similarity: float


def tie_near(
    found: Proposed,
    groups: UnionFind,
    order: Iterable[int],
    *,
    threshold: float,
    allowed: Callable[[int, int], bool] = lambda text, near: True,
    settled: Callable[[int], bool] = lambda text: False,
) -> list[Refused]:
    """Joins the groups of near-duplicates.

    Args:
        found: the texts that may have one.
        groups: of all texts; they are joined in place.
        order: positions in ``found.texts``, in the order in which they meet the ones before.
        threshold: least Jaccard index that ties.
        allowed: whether the groups of two texts may be joined.
        settled: texts that stay where they are when a join is not allowed. Any other text is then refused, and
            ties nothing further.

    Returns:
        The refused texts.
    """
    met: defaultdict[int, dict[int, list[int]]] = defaultdict(dict)
    refused: list[Refused] = []
    for position in order:
        text = int(found.texts[position])
        conflict = _tie(found, groups, met, position, threshold, allowed, stays=settled(text))
        if conflict is not None:
            refused.append(conflict)
            continue
        root = groups.find(text)
        for bucket in found.buckets[position]:
            met[bucket].setdefault(root, []).append(position)
    return refused


def _tie(
    found: Proposed,
    groups: UnionFind,
    met: defaultdict[int, dict[int, list[int]]],
    position: int,
    threshold: float,
    allowed: Callable[[int, int], bool],
    *,
    stays: bool,
) -> Refused | None:
    """Ties one text to the groups that it met; the first that it may not be tied to, unless it stays."""
    text, compared = int(found.texts[position]), set[int]()
    for bucket in found.buckets[position]:
        # Of a group that is its own by now nothing need be compared: a template's rows cost no square of them.
        parts: dict[int, list[int]] = {}
        for members in met[bucket].values():
            parts.setdefault(groups.find(int(found.texts[members[0]])), []).extend(members)
        met[bucket] = parts
        for root, members in parts.items():
            if groups.find(root) == groups.find(text):
                continue
            for other in found.likely(position, set(members) - compared):
                compared.add(other)
                similarity = found.similarity(position, other)
                if similarity < threshold:
                    continue
                near = int(found.texts[other])
                if allowed(text, near):
                    groups.join(text, near)
                    break
                if not stays:
                    return Refused(text, near, similarity)
    return None
