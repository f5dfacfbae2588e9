"""Which row stays for each that goes, and which rows hang together. How rows are compared is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Links", "UnionFind", "resolve_edges"]

Int64 = npt.NDArray[np.int64]


class Links(NamedTuple):
    """For each of n rows the one that stays in its place."""

    kept_by: Int64
    """(n,): the position of the row that stays, −1 for a row that stays itself."""
    similarity: npt.NDArray[np.float64]
    """(n,): how similar the two are, NaN for a row that stays."""


class UnionFind:
    """Disjoint sets of the numbers 0 … n − 1, with path halving; a set's name is its smallest member."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, item: int) -> int:
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        self._parent[max(a, b)] = min(a, b)

    def labels(self) -> Int64:
        """(n,): the smallest member of each number's set."""
        return np.array([self.find(item) for item in range(len(self._parent))], dtype=np.int64)


def resolve_edges(n: int, edges: Iterable[tuple[int, int, float]], *, order: Int64) -> Links:
    """Which rows go, given all pairs of duplicates.

    Rows are taken in ``order``; one goes when a duplicate of it stays already, and is said to duplicate
    the most similar of those (the one earlier in ``order`` on a tie).
    """
    neighbours: dict[int, list[tuple[float, int]]] = {}
    for a, b, similarity in edges:
        neighbours.setdefault(a, []).append((similarity, b))
        neighbours.setdefault(b, []).append((similarity, a))
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    kept_by = np.full(n, -1, dtype=np.int64)
    similarities = np.full(n, np.nan)
    for row in sorted(neighbours, key=lambda row: int(rank[row])):
        before = [(s, o) for s, o in neighbours[row] if rank[o] < rank[row] and kept_by[o] < 0]
        staying = [(s, -int(rank[o]), o) for s, o in before]
        if staying:
            similarity, _, kept = max(staying)
            kept_by[row], similarities[row] = kept, similarity
    return Links(kept_by, similarities)
