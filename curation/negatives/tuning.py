"""What other thresholds would give: a table to choose from before mining in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Unpack

import numpy as np
import polars as pl

from curation.errors import InputError, closest
from curation.negatives.mining import MiningOptions, mine_hard_negatives

__all__ = ["SWEEPABLE", "sweep_threshold"]

SWEEPABLE: Final = ("absolute_margin", "relative_margin", "max_score", "min_score", "range_min")


def sweep_threshold(
    rule: str,
    values: Sequence[float],
    *,
    anchor_embeddings: Any,
    corpus_embeddings: Any,
    positives: Sequence[Any],
    sample: int = 1_000,
    **options: Unpack[MiningOptions],
) -> pl.DataFrame:
    """Mines a seeded sample of the anchors once for each value of one threshold, the others as given.

    Args:
        rule: one of ``SWEEPABLE``.
        values: the thresholds to try.
        anchor_embeddings: as for ``mine_hard_negatives``, and so are the others.
        corpus_embeddings: likewise.
        positives: likewise; one entry per anchor.
        sample: how many anchors to mine.
        **options: of ``mine_hard_negatives``, but no ``filters``: they number the anchors of the whole input.

    Returns:
        One row a value: threshold, candidates removed by the rule, share of anchors short of negatives,
        mean score of the negatives, and mean margin (lowest positive score − negative score).

    Raises:
        InputError: when the rule cannot be swept, or an argument is wrong.
    """
    if rule not in SWEEPABLE:
        raise InputError(f"rule: found {rule!r}, expected one of {', '.join(SWEEPABLE)}{closest(rule, SWEEPABLE)}")
    if options.get("filters"):
        raise InputError("filters number the anchors of the whole input, and a sample of them is mined: give none")
    count = len(anchor_embeddings)
    rng = np.random.default_rng(options.get("seed", 0))
    rows = np.sort(rng.choice(count, min(sample, count), replace=False))
    part = np.asarray(anchor_embeddings)[rows]
    own = positives[rows] if isinstance(positives, np.ndarray) else [positives[row] for row in rows]
    lines = []
    for value in values:
        changed: Any = {**options, rule: value}
        mined = mine_hard_negatives(
            anchor_embeddings=part, corpus_embeddings=corpus_embeddings, positives=own, **changed
        )
        found = mined.negatives >= 0
        margins = (mined.positive_scores[:, None] - mined.scores)[found]
        removed = mined.waterfall.filter(pl.col("rule") == rule)["removed"].sum()
        lines.append(
            {
                "threshold": float(value),
                "removed": int(removed),
                "anchors_short": float((~found.all(axis=1)).mean()),
                "mean_score": float(mined.scores[found].mean()) if found.any() else None,
                "mean_margin": float(np.nanmean(margins)) if np.isfinite(margins).any() else None,
            }
        )
    schema = dict.fromkeys(("threshold", "anchors_short", "mean_score", "mean_margin"), pl.Float64())
    return pl.DataFrame(lines, schema={"threshold": pl.Float64(), "removed": pl.Int64(), **schema})
