"""Filtering by CHES as the paper does it, and pairing that looks for a safer pair before it drops a prompt.

Razin et al. (ICLR 2025, section 6) keep the 5 % of pairs with the lowest length-normalised CHES; up to 15 %
worked as well. That drops 85 % of the prompts or more. With several answers per prompt there is usually
another pair under the same threshold: ``ches_aware_pairs`` takes the strongest of those instead.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from curation.errors import InputError

__all__ = ["AwarePairs", "ches_aware_pairs", "keep_lowest"]


class AwarePairs(NamedTuple):
    """One pair a prompt where one is safe enough."""

    pairs: pl.DataFrame
    """Rows of the input, in its order of prompts, with ``replaced``: it is not the prompt's strongest."""
    rejects: pl.DataFrame
    """``prompt_id``, ``rule``, ``value``, ``reason``: prompts without a pair."""
    threshold: float
    """The highest score that was let through."""
    prompts: int
    """Prompts with a pair above the least strength."""
    kept_by_filter: int
    """Of these, how many keep their strongest pair under the same threshold."""
    saved: int
    """How many more prompts keep a pair than with the filter alone."""


def keep_lowest(pairs: pl.DataFrame, quantile: float, *, score: str = "ln_ches") -> tuple[pl.DataFrame, float]:
    """The pairs with the lowest scores, and the threshold: the paper's filter.

    The threshold is the score at rank ⌈quantile · n⌉; pairs without a finite score are left out, pairs equal
    to the threshold stay.

    Raises:
        InputError: when the quantile is not in (0, 1].
    """
    threshold = _threshold(pairs[score], quantile)
    return pairs.filter(_finite(score) & (pl.col(score) <= threshold)), threshold


def ches_aware_pairs(
    pairs: pl.DataFrame,
    *,
    quantile: float | None = 0.15,
    threshold: float | None = None,
    strength: str = "margin",
    score: str = "ln_ches",
    min_strength: float = 0.0,
) -> AwarePairs:
    """Each prompt's strongest pair whose CHES is low enough.

    Args:
        pairs: ordered pairs, several a prompt: ``prompt_id``, ``chosen_id``, ``rejected_id``, the strength
            and the score (``curation.scores.policy_table.explode_pairs`` joined with margins).
        quantile: the threshold is this quantile of the score over what would be taken without it: each
            prompt's strongest pair. Default 0.15, the most that the paper found as good as 0.05.
        threshold: an absolute threshold instead; then ``quantile`` must be None.
        strength: the column of preferences, higher is stronger.
        score: the column that must be low.
        min_strength: a pair's strength must be greater; equal answers are no preference.

    Ties in strength go to the lower score, then by identifier, so that the order of rows does not matter.

    Raises:
        InputError: when both or neither of ``quantile`` and ``threshold`` are given, or a column is missing.
    """
    missing = [c for c in ("prompt_id", "chosen_id", "rejected_id", strength, score) if c not in pairs.columns]
    if missing:
        raise InputError(f"pairs have no column {missing[0]!r}; found {', '.join(pairs.columns)}")
    if (quantile is None) == (threshold is None):
        raise InputError("give either a quantile or a threshold for CHES-aware pairing")
    order = pairs.select("prompt_id").unique(maintain_order=True).with_row_index("_prompt")
    usable = pairs.filter(_finite(strength) & _finite(score) & (pl.col(strength) > min_strength)).sort(
        strength, score, "chosen_id", "rejected_id", descending=[True, False, False, False]
    )
    strongest = usable.unique("prompt_id", keep="first", maintain_order=True)
    limit = threshold if threshold is not None else _threshold(strongest[score], quantile or 0.0)
    safe = usable.filter(pl.col(score) <= limit).unique("prompt_id", keep="first", maintain_order=True)
    key = ["prompt_id", "chosen_id", "rejected_id"]
    kept = (
        safe.join(strongest.select(*key, replaced=False), on=key, how="left")
        .with_columns(pl.col("replaced").fill_null(value=True))
        .join(order, on="prompt_id")
        .sort("_prompt")
        .drop("_prompt")
    )
    by_filter = strongest.filter(pl.col(score) <= limit).height
    return AwarePairs(
        kept, _rejects(order, usable, kept, score, limit), limit, strongest.height, by_filter,
        kept.height - by_filter,
    )  # fmt: skip


def _rejects(
    order: pl.DataFrame, usable: pl.DataFrame, kept: pl.DataFrame, score: str, limit: float
) -> pl.DataFrame:
    lowest = usable.group_by("prompt_id").agg(_lowest=pl.col(score).min())
    without = order.join(kept, on="prompt_id", how="anti").join(lowest, on="prompt_id", how="left").sort("_prompt")
    risky = pl.col("_lowest").is_not_null()
    return without.select(
        "prompt_id",
        rule=pl.when(risky).then(pl.lit(f"{score}_above_threshold")).otherwise(pl.lit("no_preference")),
        value=pl.col("_lowest").cast(pl.String).fill_null(""),
        reason=pl.when(risky)
        .then(pl.lit(f"every pair of the prompt has a {score} above {limit:.6g}"))
        .otherwise(pl.lit("no pair of the prompt has a strength and a score to go by")),
    )


def _finite(column: str) -> pl.Expr:
    return pl.col(column).is_not_null() & pl.col(column).is_finite()


def _threshold(scores: pl.Series, quantile: float) -> float:
    if not 0 < quantile <= 1:
        raise InputError(f"quantile is {quantile}, expected more than 0 and at most 1")
    known = scores.drop_nulls()
    known = known.filter(known.is_finite()).sort()
    if known.is_empty():
        return float("-inf")
    # The small term keeps 0.05 * 100 from becoming 6 by rounding.
    rank = max(1, int(-(-(quantile * len(known) - 1e-9) // 1)))
    return float(known[rank - 1])
