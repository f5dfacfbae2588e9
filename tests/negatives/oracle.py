"""Mining as slow, plain loops: what the fast version must agree with."""

from __future__ import annotations

from typing import Any

import numpy as np


def mine_slowly(
    anchors: Any,
    corpus: Any,
    positives: list[list[int]],
    *,
    num_negatives: int,
    range_min: int,
    range_max: int,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
) -> list[list[int]]:
    """Negatives of each anchor, by the definitions alone."""
    result = []
    most_positives = max(map(len, positives))
    for anchor, own in zip(anchors, positives, strict=True):
        scores = [float(np.float32(np.dot(anchor, document))) for document in corpus]
        order = sorted(range(len(corpus)), key=lambda row: (-scores[row], row))
        p = min(scores[row] for row in own)
        kept = []
        for row in order[: range_max + most_positives]:
            s = scores[row]
            broken = (
                row in own
                or (absolute_margin is not None and s + absolute_margin > p)
                or (relative_margin is not None and s > p - relative_margin * abs(p))
                or (max_score is not None and s > max_score)
                or (min_score is not None and s < min_score)
            )
            if not broken:
                kept.append(row)
        result.append(kept[:range_max][range_min:][:num_negatives])
    return result
