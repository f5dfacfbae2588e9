"""Which documents may stand in the rows of which split: evaluation rows' answers teach nothing. No text is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from curation.negatives.filters import Bool, Candidates

__all__ = ["LENDERS", "SplitFilter"]

LENDERS: Final = {
    "train": ("train",),
    "validation": ("train", "validation"),
    "test": ("train", "validation", "test"),
}
"""Whose answers may be negatives of each split's anchors. The other way round, the right answer of an evaluation
row would be taught as a wrong one."""

_BITS: Final = {name: 1 << place for place, name in enumerate(LENDERS)}


class SplitFilter:
    """Removes documents that only answer prompts of splits which lend the anchor nothing (``LENDERS``).

    A document that answers nobody is everybody's; one that answers prompts of several splits stays where one lends.
    """

    rule = "other_split"
    threshold: float | None = None

    def __init__(self, *, anchors: Sequence[str], documents: Sequence[Sequence[str]]) -> None:
        """
        Args:
            anchors: the split of each mined anchor.
            documents: for each document of the corpus the splits of the prompts that it answers.
        """
        self._lenders = _bits([LENDERS[split] for split in anchors])
        self._answers = _bits(documents)

    def remove(self, candidates: Candidates) -> Bool:
        answers = self._answers[candidates.rows]
        gone: Bool = (answers != 0) & (answers & self._lenders[candidates.anchors][:, None] == 0)
        return gone


def _bits(splits: Sequence[Sequence[str]]) -> npt.NDArray[Any]:
    return np.array([sum(_BITS[name] for name in set(own)) for own in splits], dtype=np.uint8)
