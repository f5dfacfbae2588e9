"""How many pairs of two refusals are kept. Which answers refuse is told elsewhere."""

from __future__ import annotations

import math
from typing import NamedTuple

import polars as pl

from curation.tables import empty_rejects, rejects_frame

__all__ = ["LimitedPairs", "limit_refusal_pairs"]


class LimitedPairs(NamedTuple):
    """The pairs that stay, in their order, and those that do not."""

    kept: pl.DataFrame
    rejects: pl.DataFrame


def limit_refusal_pairs(pairs: pl.DataFrame, *, share: float) -> LimitedPairs:
    """Keep so many pairs of two refusals that they make up at most a share of all: the lowest CHES first.

    Two refusals look alike to a model, and training on them pushes the chosen one down as well (Razin et al.
    2025); their length-normalised CHES says how much.

    Args:
        pairs: ``pair_id``, ``ln_ches`` (null: not measured, taken last), ``chosen_refusal_class`` and
            ``rejected_refusal_class``; partial refusals count.
        share: from 0 to 1, of the pairs that are kept.
    """
    if share >= 1:
        return LimitedPairs(pairs, empty_rejects())
    sides = [(pl.col(f"{side}_refusal_class") != "compliance").fill_null(False) for side in ("chosen", "rejected")]
    marked = pairs.with_columns(_both=sides[0] & sides[1])
    both = marked.filter("_both").sort("ln_ches", "pair_id", nulls_last=True)
    allowed = math.floor(share / (1 - share) * (pairs.height - both.height) + 1e-9)
    surplus = both[allowed:]
    rejects = rejects_frame(
        surplus,
        table="pairs",
        stage="preference",
        row_id=pl.col("pair_id"),
        rule="refusal_pair_surplus",
        value=pl.col("ln_ches"),
        threshold=f"{share:g}",
        reason=f"both answers refuse, and such pairs are limited to {share:.1%} of the kept ones",
    )
    kept = marked.join(surplus.select("pair_id"), on="pair_id", how="anti", maintain_order="left").drop("_both")
    return LimitedPairs(kept, rejects)
