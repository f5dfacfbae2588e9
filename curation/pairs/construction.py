"""Pairs as a view over candidates: which two answers to a prompt are compared.

Everything is a polars expression; no row is visited in Python but to hash its identifiers. Which of the
pairs are kept is :mod:`curation.pairs.selection`.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import polars as pl

from curation.tables import concat_rejects, rejects_frame
from curation.text import pair_id

__all__ = ["BuiltPairs", "Strategy", "build_pairs", "pair_ids", "provided_pairs", "without_conflicts"]

Strategy = Literal["best_vs_worst", "best_vs_random", "all"]

_GOLDEN: Final = 0x9E3779B97F4A7C15
_KEY: Final = ("prompt_id", "chosen_id", "rejected_id")


class BuiltPairs(NamedTuple):
    """Pairs, and what could not become one."""

    pairs: pl.DataFrame
    """pair_id, prompt_id, chosen_id, rejected_id, strategy, margin."""
    rejects: pl.DataFrame
    """rows of table ``rejects``."""


def build_pairs(
    candidates: pl.DataFrame,
    *,
    strategy: Strategy = "best_vs_worst",
    score: str = "score",
    min_margin: float = 0.0,
    seed: int = 0,
) -> BuiltPairs:
    """Pairs of the candidates of each prompt, ranked by a score.

    A pair's margin is the difference of its scores, and it must be *greater* than ``min_margin``: equal
    scores never make a pair. Candidates without a finite score take no part. Ties for the best or the
    worst are broken by identifier, so the order of the rows does not matter.

    Args:
        candidates: columns ``prompt_id``, ``candidate_id`` and the score; one row a candidate.
        strategy: ``best_vs_worst``; ``best_vs_random``, a seeded draw among those scored lower
            (UltraFeedback's convention, Cui et al. 2023); ``all``, every pair above the margin.
        score: the column that ranks; higher is better.
        min_margin: in the unit of the score.
        seed: of the draw.

    Returns:
        The pairs in the order of the prompts, and one reject for each prompt that has none
        (``one_candidate``, ``tied_scores`` or ``margin_too_small``) and each unscored candidate
        (``no_score``).
    """
    scored = candidates.select("prompt_id", "candidate_id", score=pl.col(score).cast(pl.Float64))
    usable = scored.filter(pl.col("score").is_finite()).unique("candidate_id", keep="first", maintain_order=True)
    ranked = usable.sort("score", "candidate_id", descending=[True, False])
    every = strategy == "all"
    pairs = _all_pairs(ranked, min_margin) if every else _best_pairs(ranked, strategy, min_margin, seed)
    order = scored.select("prompt_id").unique(maintain_order=True).with_row_index("_order")
    pairs = (
        pairs.join(order, on="prompt_id")
        .sort("_order", "margin", "chosen_id", "rejected_id", descending=[False, True, False, False])
        .select(*_KEY, "margin", strategy=pl.lit(strategy))
    )
    return BuiltPairs(pair_ids(pairs), _without_pair(scored, usable, pairs, min_margin))


def _best_pairs(ranked: pl.DataFrame, strategy: Strategy, min_margin: float, seed: int) -> pl.DataFrame:
    """The best candidate of each prompt against the worst, or against a random lower one."""
    best = ranked.group_by("prompt_id", maintain_order=True).first()
    best = best.rename({"candidate_id": "chosen_id", "score": "_best"})
    lower = ranked.join(best, on="prompt_id").with_columns(margin=pl.col("_best") - pl.col("score"))
    lower = lower.filter(pl.col("margin") > min_margin).rename({"candidate_id": "rejected_id"})
    draw = pl.col("margin") if strategy == "best_vs_worst" else _draw("rejected_id", seed)
    return (
        lower.with_columns(_draw=draw)
        .sort("_draw", "rejected_id", descending=[True, False])
        .group_by("prompt_id", maintain_order=True)
        .first()
        .select(*_KEY, "margin")
    )


def _all_pairs(ranked: pl.DataFrame, min_margin: float) -> pl.DataFrame:
    """Every ordered pair whose margin is large enough."""
    left = ranked.rename({"candidate_id": "chosen_id"})
    right = ranked.rename({"candidate_id": "rejected_id", "score": "_rejected"})
    crossed = left.join(right, on="prompt_id").with_columns(margin=pl.col("score") - pl.col("_rejected"))
    return crossed.filter(pl.col("margin") > min_margin).select(*_KEY, "margin")


def _draw(column: str, seed: int) -> pl.Expr:
    """A pseudo-random number for each identifier: the same in every version and on every machine."""
    multiplier = (_GOLDEN * (2 * seed + 1)) % 2**31 | 1
    digits = pl.col(column).str.slice(0, 7).str.to_integer(base=16, dtype=pl.Int64)
    return (digits * multiplier) % 2_147_483_647


def _without_pair(
    scored: pl.DataFrame, usable: pl.DataFrame, pairs: pl.DataFrame, min_margin: float
) -> pl.DataFrame:
    """Why a candidate or a prompt is in no pair."""
    unscored = scored.join(usable, on="candidate_id", how="anti", maintain_order="left")
    spread = usable.group_by("prompt_id", maintain_order=True).agg(
        n=pl.len(), spread=pl.col("score").max() - pl.col("score").min()
    )
    left = (
        scored.select("prompt_id")
        .unique(maintain_order=True)
        .join(pairs, on="prompt_id", how="anti", maintain_order="left")
        .join(spread, on="prompt_id", how="left", maintain_order="left")
        .with_columns(pl.col("n").fill_null(0))
    )
    rule = (
        pl.when(pl.col("n") < 2)
        .then(pl.lit("one_candidate"))
        .when(pl.col("spread") == 0)
        .then(pl.lit("tied_scores"))
        .otherwise(pl.lit("margin_too_small"))
    )
    reason = (
        pl.when(pl.col("n") < 2)
        .then(pl.format("the prompt has {} scored candidates, a pair needs two", "n"))
        .when(pl.col("spread") == 0)
        .then(pl.format("all {} candidates of the prompt have the same score", "n"))
        .otherwise(pl.format("the largest margin is {}", "spread"))
    )
    return concat_rejects(
        rejects_frame(
            unscored,
            table="candidates",
            stage="pairs",
            row_id=pl.col("candidate_id"),
            rule="no_score",
            value=pl.col("score"),
            reason="the candidate has no finite score, so it cannot be ranked",
        ),
        rejects_frame(
            left,
            table="prompts",
            stage="pairs",
            row_id=pl.col("prompt_id"),
            rule=rule,
            value=pl.col("spread"),
            threshold=pl.lit(str(min_margin)),
            reason=reason,
        ),
    )


def provided_pairs(inputs: pl.DataFrame) -> BuiltPairs:
    """The pairs that the sources bring, each once.

    Args:
        inputs: rows of table ``inputs``; those of kind ``pair`` are used.

    Returns:
        The pairs, with margin null or the difference of the row's own scores; and as rejects the rows
        that repeat a pair (``duplicate_pair``, naming the row that was kept).
    """
    rows = inputs.filter(pl.col("kind") == "pair").select(
        "input_id",
        "prompt_id",
        chosen_id=pl.col("candidate_ids").list.get(pl.col("chosen_index")),
        rejected_id=pl.col("candidate_ids").list.get(pl.col("rejected_index")),
        margin=pl.col("scores").list.get(pl.col("chosen_index"))
        - pl.col("scores").list.get(pl.col("rejected_index")),
    )
    same = rows.filter(pl.col("chosen_id") == pl.col("rejected_id"))
    rows = rows.filter(pl.col("chosen_id") != pl.col("rejected_id"))
    first = pl.col("input_id").first().over(_KEY)
    repeated = rows.with_columns(_first=first).filter(pl.col("_first") != pl.col("input_id"))
    kept = rows.unique(subset=_KEY, keep="first", maintain_order=True)
    rejects = concat_rejects(
        rejects_frame(
            same,
            table="inputs",
            stage="pairs",
            row_id=pl.col("input_id"),
            rule="chosen_equals_rejected",
            reason="chosen and rejected are the same text once normalised",
        ),
        rejects_frame(
            repeated,
            table="inputs",
            stage="pairs",
            row_id=pl.col("input_id"),
            rule="duplicate_pair",
            value=pl.col("_first"),
            reason=pl.format("the same pair stands in row {}, which was kept", "_first"),
        ),
    )
    return BuiltPairs(pair_ids(kept.select(*_KEY, "margin", strategy=pl.lit("provided"))), rejects)


def without_conflicts(pairs: pl.DataFrame) -> BuiltPairs:
    """Leave out pairs that stand in both directions: one of the two labels is wrong, and which is unknown."""
    reverse = pairs.select("prompt_id", chosen_id="rejected_id", rejected_id="chosen_id", _other="pair_id")
    conflicts = pairs.join(reverse, on=_KEY, maintain_order="left")
    kept = pairs.join(conflicts, on="pair_id", how="anti", maintain_order="left")
    rejects = rejects_frame(
        conflicts,
        table="pairs",
        stage="pairs",
        row_id=pl.col("pair_id"),
        rule="contradictory_pair",
        value=pl.col("_other"),
        reason=pl.format("pair {} says the opposite of the same two answers", "_other"),
    )
    return BuiltPairs(kept, rejects)


def pair_ids(pairs: pl.DataFrame) -> pl.DataFrame:
    """The frame with its ``pair_id`` in front."""
    ids = [pair_id(*key) for key in pairs.select(_KEY).iter_rows()]
    return pairs.select(pl.Series("pair_id", ids, dtype=pl.String), pl.all())
