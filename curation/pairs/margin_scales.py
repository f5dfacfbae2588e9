"""What the margins of pairs are measured in, and margins of several scales put on one. Pairs are built elsewhere.

A margin of 0.5 is much between probabilities and little between grades from 1 to 10. Where pairs were built by
scores of several scales, each margin is divided by the spread of its scale before margins are compared, put in
order or trained on.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from curation.scores.margins import robust_scale

__all__ = ["REWARD_SCALE", "named_scale", "scale_count", "scale_of_source", "with_one_scale_of_margins"]

REWARD_SCALE = "rewards"
"""Of pairs that are built by reward models, whose mean is of margins that are on one scale already."""


def named_scale(scales: Mapping[str, str | None]) -> pl.Expr:
    """The scale that the recipe names for a row's source; null for none."""
    return pl.col("source").replace_strict(dict(scales), return_dtype=pl.String)


def scale_of_source(scales: Mapping[str, str | None]) -> pl.Expr:
    """What a row's scores (table ``inputs``) mean: ``scale NAME`` as the recipe says, else ``source NAME``."""
    named = named_scale(scales)
    # A scale that has a name is not the source that is called so.
    own = pl.format("source {}", "source")
    return pl.when(named.is_null()).then(own).otherwise(pl.format("scale {}", named))


def scale_count(pairs: pl.DataFrame) -> int:
    """On how many scales the pairs' margins are."""
    if "margin_scale" not in pairs.columns:
        return min(1, pairs.height)
    return pairs.filter(pl.col("margin").is_not_null())["margin_scale"].n_unique()


def with_one_scale_of_margins(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs with margins that may be compared: as they are on one scale, else each over its scale's spread.

    The spread is that of strength: 1.4826 × median |margin| (see :func:`curation.scores.margins.robust_scale`).

    Args:
        pairs: ``margin`` and ``margin_scale``; both may be null, and the second may be missing.
    """
    if scale_count(pairs) <= 1:
        return pairs
    spread = {
        scale: float(robust_scale(own["margin"].drop_nulls().to_numpy()[:, None])[0])
        for (scale,), own in pairs.partition_by("margin_scale", as_dict=True).items()
        if scale is not None
    }
    divisor = pl.col("margin_scale").replace_strict(spread, default=1.0, return_dtype=pl.Float64)
    return pairs.with_columns(margin=pl.col("margin") / divisor)
