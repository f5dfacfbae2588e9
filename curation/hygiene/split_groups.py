"""Which prompts must be on one side of a split: families, and chains of near-duplicates.

A prompt that already has a side never leaves it. So a new prompt that is near prompts on two sides can be
on neither without a leak: it is named as crossing, and its caller drops it. Which side a new group gets is in
``splits``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from curation.hygiene.bands import BandKeys, propose
from curation.hygiene.groups import Int64, UnionFind
from curation.hygiene.near import Refused, tie_near

__all__ = ["SplitGroups", "split_groups"]


class SplitGroups(NamedTuple):
    """Groups of n texts."""

    labels: Int64
    """(n,) the smallest member of each text's group; a crossing text is in the group that it met first."""
    crossing: list[Refused]
    """New texts that are near texts on two sides."""


def split_groups(
    texts: pl.Series,
    *,
    families: Sequence[str],
    sides: Sequence[str | None],
    threshold: float | None,
    seed: int = 0,
    keys: BandKeys | None = None,
) -> SplitGroups:
    """Groups of texts that share a family or a chain of near-duplicates.

    Args:
        texts: n texts, no nulls.
        families: n names; equal ones tie.
        sides: n splits that were given before, None for new texts.
        threshold: least Jaccard index of word 3-grams that ties; None ties by family alone.
        seed: of the hash functions.
        keys: who computes band keys where it is not done here; see ``near``.
    """
    groups = _SidedGroups(sides)
    first: dict[str, int] = {}
    for row, family in enumerate(families):
        groups.join(first.setdefault(family, row), row)
    if threshold is None or not len(texts):
        return SplitGroups(groups.labels(), [])
    found = propose(texts, threshold=threshold, seed=seed, keys=keys)
    # Texts with a side come first, so that a conflict is always met at a new text.
    new = np.array([sides[text] is None for text in found.texts], dtype=bool)
    order = np.argsort(new, kind="stable").tolist()
    crossing = tie_near(
        found,
        groups,
        order,
        threshold=threshold,
        allowed=groups.may_join,
        settled=lambda text: sides[text] is not None,
    )
    return SplitGroups(groups.labels(), crossing)


class _SidedGroups(UnionFind):
    """Groups of which those on different sides are never joined."""

    def __init__(self, sides: Sequence[str | None]) -> None:
        super().__init__(len(sides))
        self._side: dict[int, str] = {row: side for row, side in enumerate(sides) if side is not None}

    def may_join(self, a: int, b: int) -> bool:
        one, other = self._side.get(self.find(a)), self._side.get(self.find(b))
        return one is None or other is None or one == other

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        # Of a family that already stands on two sides, the gate on leakage speaks.
        side = self._side.get(min(a, b)) or self._side.get(max(a, b))
        super().join(a, b)
        if side is not None:
            self._side[self.find(a)] = side
