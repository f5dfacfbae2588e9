"""The rules that take candidates away, each over a whole block of anchors. Counting is in ``waterfall``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from curation.negatives.inputs import Float32, Int64, Ragged

__all__ = ["Bool", "CandidateFilter", "Candidates", "Thresholds", "in_lists", "threshold_rules"]

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """What is near a block of anchors, best first.

    Attributes:
        anchors: (n,) row numbers of the anchors in the whole input.
        rows: (n, k) corpus rows, −1 for an empty place.
        scores: (n, k) similarity to the anchor.
        positive_scores: (n,) the lowest similarity of a positive to its anchor; NaN without a positive.
        alive: (n, k) true where no rule has removed the candidate. Rules clear it.
    """

    anchors: Int64
    rows: Int64
    scores: Float32
    positive_scores: Float32
    alive: Bool = field(repr=False)

    @property
    def left(self) -> int:
        return int(np.count_nonzero(self.alive))


class CandidateFilter(Protocol):
    """A rule beyond the thresholds: a guide model, a near-duplicate test, ….

    Attributes:
        rule: its name in the waterfall, in snake_case.
        threshold: the number it compares with, for the waterfall; None where there is none.
    """

    rule: str
    threshold: float | None

    def remove(self, candidates: Candidates) -> Bool:
        """(n, k), true where the candidate must go; what is dead already does not matter."""
        ...


class Thresholds(NamedTuple):
    """The similarity rules, None where one is not asked for."""

    absolute_margin: float | None = None
    """Keep s when s + margin ≤ p, with p the lowest positive score of the anchor."""
    relative_margin: float | None = None
    """Keep s when s ≤ p − margin · |p|: .05 is NV-Retriever's "TopK-PercPos 95 %", for negative p, too."""
    max_score: float | None = None
    """Keep s when s ≤ max_score."""
    min_score: float | None = None
    """Keep s when s ≥ min_score."""


def threshold_rules(candidates: Candidates, thresholds: Thresholds) -> list[tuple[str, float, Bool]]:
    """Each rule that is asked for: its name, its threshold, and which candidates break it.

    The order is that of sentence-transformers. An anchor without a positive has no margin to keep, so a
    margin removes none of its candidates.
    """
    scores = candidates.scores
    positive = candidates.positive_scores[:, None]
    rules: list[tuple[str, float, Bool]] = []
    if thresholds.absolute_margin is not None:
        margin = thresholds.absolute_margin
        rules.append(("absolute_margin", margin, scores + np.float32(margin) > positive))
    if thresholds.relative_margin is not None:
        margin = thresholds.relative_margin
        rules.append(("relative_margin", margin, scores > positive - np.abs(positive) * np.float32(margin)))
    if thresholds.max_score is not None:
        rules.append(("max_score", thresholds.max_score, scores > np.float32(thresholds.max_score)))
    if thresholds.min_score is not None:
        rules.append(("min_score", thresholds.min_score, scores < np.float32(thresholds.min_score)))
    return rules


def in_lists(rows: Int64, lists: Ragged, *, corpus: int) -> Bool:
    """(n, k), true where ``rows[i, j]`` is in list i."""
    n = len(rows)
    counts = lists.counts
    widest = int(counts.max(initial=0))
    if widest <= 8:
        mask = np.zeros(rows.shape, np.bool_)
        for position in range(widest):
            has = np.flatnonzero(counts > position)
            value = lists.values[lists.offsets[has] + position]
            mask[has] |= rows[has] == value[:, None]
        return mask
    width = np.int64(corpus + 1)
    keys = (np.arange(n, dtype=np.int64)[:, None] * width + rows + 1).ravel()
    wanted = lists.owners * width + lists.values + 1
    at = np.searchsorted(wanted, keys).clip(max=len(wanted) - 1)
    hit: Bool = (wanted[at] == keys).reshape(rows.shape)
    return hit
