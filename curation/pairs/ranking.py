"""Candidates in order: each prompt's scored answers from the best to the worst, as row numbers.

A pair is two row numbers (``high``, ``low``) of this order, so that strategies compare and draw integers and
touch no identifier. Which rows are paired is in :mod:`curation.pairs.strategies` and ``tournament``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

__all__ = ["Ranking", "draw", "rank_candidates", "with_margin"]

_GOLDEN: Final = 0x9E3779B97F4A7C15


class Ranking(NamedTuple):
    """Every usable candidate, one row each."""

    frame: pl.DataFrame
    """``prompt`` (u32, the prompt's place in ``prompts``), ``candidate_id``, ``score``; sorted by prompt, score
    (highest first) and identifier."""
    groups: pl.DataFrame
    """``prompt``, ``start`` (i64, the row of its best), ``n`` (i64): the prompts with a usable candidate."""
    prompts: pl.Series
    """The prompts' identifiers, in the order of the input; one for each set of answers that may be compared."""
    scales: pl.Series
    """Beside ``prompts``, what the scores of each set are measured in; null where it is not said."""
    unscored: pl.DataFrame
    """``prompt_id``, ``candidate_id``, ``score`` of the candidates without a finite score."""


def rank_candidates(
    candidates: pl.DataFrame, *, score: str, within: str | None = None, scale: str | None = None
) -> Ranking:
    """Put the candidates of each prompt in order; ties in the score go by identifier.

    A candidate that stands twice counts once, of each value of ``within``: candidates of different values are not
    put in one order. Those without a finite score are set aside. ``scale`` is a column with one value for all that
    are compared.
    """
    key = ["prompt_id"] if within is None else ["prompt_id", "within"]
    given = candidates.select(
        "prompt_id",
        "candidate_id",
        score=pl.col(score).cast(pl.Float64),
        **({} if scale is None else {"scale": pl.col(scale)}),
        **({} if within is None else {"within": pl.col(within)}),
    )
    finite = pl.col("score").is_finite().fill_null(value=False)
    usable = given.filter(finite)
    numbers = _numbered(given, usable, key)
    once = ["candidate_id", *key[1:]]
    if usable.select(once).n_unique() < usable.height:
        usable = usable.unique(once, keep="first", maintain_order=True)
    frame = (
        usable.join(numbers, on=key, maintain_order="left")
        .select("prompt", "candidate_id", "score")
        .sort("prompt", "score", "candidate_id", descending=[False, True, False])
    )
    groups = (
        frame.group_by("prompt", maintain_order=True)
        .agg(n=pl.len().cast(pl.Int64))
        .with_columns(start=pl.col("n").cum_sum() - pl.col("n"))
    )
    unscored = given.filter(~finite).unique("candidate_id", keep="first", maintain_order=True)
    if unscored.height:
        unscored = unscored.join(frame, on="candidate_id", how="anti", maintain_order="left")
    scales = pl.Series([None] * numbers.height, dtype=pl.String)
    if scale is not None:
        first = usable.unique(key, keep="first", maintain_order=True).select(*key, "scale")
        scales = numbers.join(first, on=key, how="left", maintain_order="left", nulls_equal=True)["scale"]
    return Ranking(frame, groups, numbers["prompt_id"], scales, unscored.drop("scale", strict=False))


def _numbered(given: pl.DataFrame, usable: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Each key with ``prompt``, its number in the order of the prompts; a prompt without a score has one, too."""
    prompts = given.select("prompt_id").unique(maintain_order=True)
    if key != ["prompt_id"]:
        prompts = prompts.join(
            usable.select(key).unique(maintain_order=True), on="prompt_id", how="left", maintain_order="left_right"
        )
    return prompts.with_row_index("prompt")


def with_margin(ranking: Ranking, pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs of row numbers with ``margin``: how much higher ``high`` is scored than ``low``."""
    score = ranking.frame["score"]
    return pairs.with_columns(margin=score.gather(pairs["high"]) - score.gather(pairs["low"]))


def draw(identifiers: pl.Series, seed: int) -> pl.Series:
    """A pseudo-random number for each identifier: the same in every version and on every machine."""
    multiplier = (_GOLDEN * (2 * seed + 1)) % 2**31 | 1
    digits = identifiers.str.slice(0, 7).str.to_integer(base=16, dtype=pl.Int64)
    return (digits * multiplier) % 2_147_483_647
