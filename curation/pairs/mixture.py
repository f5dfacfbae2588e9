"""How much of what: caps per prompt, and mixtures over sources and categories. Pairs are neither made nor changed.

The order in which the kept ones are trained on is in ``curriculum``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import polars as pl

from curation.errors import InputError
from curation.pairs.ranking import draw
from curation.tables import concat_rejects, rejects_frame

__all__ = ["NO_GROUP", "Capped", "Mixed", "cap_per_prompt", "mix_pairs"]

NO_GROUP: Final = "none"
"""What stands in a mixture for pairs without a source or category."""
_STAGE: Final = "preference"


class Capped(NamedTuple):
    """Pairs under a cap, and those above it."""

    kept: pl.DataFrame
    rejects: pl.DataFrame


class Mixed(NamedTuple):
    """A mixture."""

    kept: pl.DataFrame
    """Rows of the input, in its order."""
    rejects: pl.DataFrame
    """Table ``rejects``: ``not_in_mixture`` (weight 0 or none given), ``over_mixture_share``."""
    shares: pl.DataFrame
    """One row a group: ``source``, ``category`` (null where it does not count), ``weight``, ``found``,
    ``wanted``, ``kept``, ``short`` (wanted − kept)."""


def cap_per_prompt(pairs: pl.DataFrame, *, limit: int, by: str = "strength_mean") -> Capped:
    """At most ``limit`` pairs of each prompt: those with the highest ``by``; without it come last.

    Args:
        pairs: ``pair_id``, ``prompt_id`` and the score; ties go by identifier.
    """
    if limit < 1:
        raise InputError(f"max_per_prompt is {limit}, expected at least 1")
    score = pl.col(by).cast(pl.Float64).fill_nan(None).fill_null(-math.inf)
    order = pairs.select("pair_id", "prompt_id", _score=score).with_row_index("_row")
    places = (
        order.sort("prompt_id", "_score", "pair_id", descending=[False, True, False])
        .with_columns(_place=pl.int_range(pl.len()).over("prompt_id"))
        .sort("_row")["_place"]
    )
    over = pairs.with_columns(_place=places).filter(pl.col("_place") >= limit)
    rejects = rejects_frame(
        over,
        table="pairs",
        stage=_STAGE,
        row_id=pl.col("pair_id"),
        rule="over_prompt_cap",
        value=pl.col("_place") + 1,
        threshold=str(limit),
        reason=pl.format(
            "it is pair {} of its prompt by {}, and {} are kept", pl.col("_place") + 1, pl.lit(by), limit
        ),
    )
    return Capped(pairs.filter(places < limit), rejects)


def mix_pairs(
    pairs: pl.DataFrame,
    *,
    sources: Mapping[str, float] | None = None,
    categories: Mapping[str, float] | None = None,
    rows: int | None = None,
    seed: int = 0,
) -> Mixed:
    """Pairs in given proportions. Nothing is repeated to fill a share: what is missing is reported.

    With both mappings, a group is a source and a category, and its weight the product of the two.

    Args:
        pairs: ``pair_id``, and ``source`` or ``category`` as the weights need them.
        sources: source to weight, not negative; :data:`NO_GROUP` is the pairs without one. Pairs of a
            source that is not named are left out.
        categories: likewise.
        rows: how many pairs in all, shared out by largest remainder. None takes the most for which no group
            that has any pairs falls short.
        seed: of the draw within a group.

    Raises:
        InputError: when no weight is given, one is negative, or all are 0.
    """
    weights = {"source": dict(sources or {}), "category": dict(categories or {})}
    by = [column for column, given in weights.items() if given]
    _checked(weights, by, rows)
    marked = pairs.with_columns(pl.col(c).fill_null(NO_GROUP).alias(f"_{c}") for c in by).with_row_index("_row")
    groups = [f"_{c}" for c in by]
    shares = _shares(marked, weights, by, rows)
    identifiers = marked.select("_row", *groups, "pair_id", _draw=draw(marked["pair_id"], seed))
    places = (
        identifiers.sort(*groups, "_draw", "pair_id")
        .with_columns(_place=pl.int_range(pl.len(), dtype=pl.Int64).over(groups))
        .select("_row", "_place")
    )
    placed = (
        marked.join(places, on="_row", maintain_order="left")
        .join(shares.select(*groups, "weight", "wanted"), on=groups, how="left", maintain_order="left")
        .with_columns(pl.col("weight").fill_null(0.0), pl.col("wanted").fill_null(0))
    )
    stays = pl.col("_place") < pl.col("wanted")
    outside = pl.col("weight") == 0
    name = pl.concat_str(groups, separator=" / ")
    rejects = rejects_frame(
        placed.filter(~stays),
        table="pairs",
        stage=_STAGE,
        row_id=pl.col("pair_id"),
        rule=pl.when(outside).then(pl.lit("not_in_mixture")).otherwise(pl.lit("over_mixture_share")),
        value=name,
        threshold=pl.col("wanted").cast(pl.String),
        reason=pl.when(outside)
        .then(pl.format("the mixture gives {} no weight", name))
        .otherwise(pl.format("the mixture takes {} pairs of {}, and the draw fell on others", "wanted", name)),
    )
    kept = placed.filter(stays).select(pairs.columns)
    counts = placed.filter(stays).group_by(groups).agg(kept=pl.len().cast(pl.Int64))
    table = shares.join(counts, on=groups, how="left", maintain_order="left").with_columns(
        pl.col("kept").fill_null(0)
    )
    columns = [pl.col(f"_{c}").alias(c) if c in by else pl.lit(None, pl.String).alias(c) for c in weights]
    table = table.select(*columns, "weight", "found", "wanted", "kept", short=pl.col("wanted") - pl.col("kept"))
    return Mixed(kept, concat_rejects(rejects), table)


def _shares(
    marked: pl.DataFrame, weights: Mapping[str, Mapping[str, float]], by: list[str], rows: int | None
) -> pl.DataFrame:
    """Each group with its weight, the pairs that there are, and those that are wanted of it."""
    cells = pl.DataFrame({"weight": [1.0]})
    for column in by:
        given = weights[column]
        names = pl.DataFrame({f"_{column}": list(given), "_w": [float(w) for w in given.values()]})
        cells = cells.join(names, how="cross").with_columns(weight=pl.col("weight") * pl.col("_w")).drop("_w")
    groups = [f"_{c}" for c in by]
    found = marked.group_by(groups).agg(found=pl.len().cast(pl.Int64))
    cells = cells.join(found, on=groups, how="left", maintain_order="left").with_columns(
        pl.col("found").fill_null(0)
    )
    total = float(cells["weight"].sum())
    if rows is None:
        there = cells.filter((pl.col("weight") > 0) & (pl.col("found") > 0))
        scale = there.select((pl.col("found") / pl.col("weight")).min()).item() or 0.0
        return cells.with_columns(wanted=(pl.col("weight") * scale + 1e-9).floor().cast(pl.Int64))
    exact = pl.col("weight") * (rows / total)
    cells = cells.with_columns(wanted=(exact + 1e-9).floor().cast(pl.Int64))
    rest = rows - int(cells["wanted"].sum())
    # Equal remainders differ in their last bits by the order of the products; the first of them come first.
    by_remainder = (exact - pl.col("wanted")).round(9).rank("ordinal", descending=True)
    return cells.with_columns(wanted=pl.col("wanted") + (by_remainder <= rest).cast(pl.Int64))


def _checked(weights: Mapping[str, Mapping[str, float]], by: list[str], rows: int | None) -> None:
    if not by:
        raise InputError("a mixture needs weights of sources or of categories")
    for column in by:
        for name, weight in weights[column].items():
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"the weight of {column} {name!r} is {weight}, expected a number of at least 0")
        if not sum(weights[column].values()) > 0:
            raise InputError(f"the weights of all {column} values are 0: nothing would be left")
    if rows is not None and rows < 1:
        raise InputError(f"a mixture of {rows} rows, expected at least 1")
