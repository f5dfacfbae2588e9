"""Which two answers of a prompt are compared: the strategies that go by a score alone.

Each takes a ranking and gives ``prompt``, ``high``, ``low`` (row numbers of the ranking) and ``margin``, of
pairs whose margin is greater than the least. Tournaments are in ``tournament``; pairs by what the answers do
(refuse, forget) in ``behaviour``.
"""

from __future__ import annotations

import polars as pl

from curation.pairs.ranking import Ranking, draw, with_margin

__all__ = [
    "all_pairs",
    "best_vs_each",
    "best_vs_median",
    "best_vs_random",
    "best_vs_worst",
    "diverse_pairs",
    "margin_window",
]


def best_vs_worst(ranking: Ranking, *, min_margin: float) -> pl.DataFrame:
    """The best against the worst; of several that are worst, the one with the lowest identifier."""
    new_score = pl.struct("prompt", "score").rle_id()
    first = (
        ranking.frame.select("prompt", run=new_score)
        .with_row_index("row")
        .group_by("prompt", "run", maintain_order=True)
        .agg(pl.col("row").first())
        .group_by("prompt", maintain_order=True)
        .agg(high=pl.col("row").first().cast(pl.Int64), low=pl.col("row").last().cast(pl.Int64))
    )
    return _above(with_margin(ranking, first), min_margin)


def best_vs_median(ranking: Ranking, *, min_margin: float) -> pl.DataFrame:
    """The best against the median of the prompt's answers: of an even number, the lower of the two."""
    pairs = ranking.groups.filter(pl.col("n") > 1).select(
        "prompt", high="start", low=pl.col("start") + pl.col("n") // 2
    )
    return _above(with_margin(ranking, pairs), min_margin)


def best_vs_each(ranking: Ranking, *, min_margin: float) -> pl.DataFrame:
    """The best against every other one: Curry-DPO's pairs (Pattnaik et al. 2024), easy to hard by margin."""
    pairs = ranking.groups.filter(pl.col("n") > 1).select(
        "prompt", high="start", low=pl.int_ranges(pl.col("start") + 1, pl.col("start") + pl.col("n"))
    )
    return _above(with_margin(ranking, pairs.explode("low")), min_margin)


def best_vs_random(ranking: Ranking, *, min_margin: float, seed: int) -> pl.DataFrame:
    """The best against a seeded draw among those scored lower (UltraFeedback, Cui et al. 2023)."""
    lower = best_vs_each(ranking, min_margin=min_margin)
    numbers = draw(ranking.frame["candidate_id"], seed)
    # Rows of one prompt and score lie in the order of their identifiers, which breaks a tie of the draw.
    identifiers = ranking.frame["candidate_id"].gather(lower["low"])
    drawn = lower.with_columns(_draw=numbers.gather(lower["low"]), _id=identifiers)
    return (
        drawn.sort("prompt", "_draw", "_id", descending=[False, True, False])
        .unique("prompt", keep="first", maintain_order=True)
        .drop("_draw", "_id")
    )


def all_pairs(ranking: Ranking, *, min_margin: float) -> pl.DataFrame:
    """Every ordered pair of a prompt whose margin is large enough."""
    ends = ranking.groups.select("prompt", end=pl.col("start") + pl.col("n"))
    rows = ranking.frame.select("prompt").with_row_index("high").with_columns(pl.col("high").cast(pl.Int64))
    ranges = rows.join(ends, on="prompt", maintain_order="left").filter(pl.col("high") + 1 < pl.col("end"))
    pairs = ranges.select("prompt", "high", low=pl.int_ranges(pl.col("high") + 1, "end")).explode("low")
    return _above(with_margin(ranking, pairs), min_margin)


def margin_window(ranking: Ranking, *, min_margin: float, max_margin: float) -> pl.DataFrame:
    """Every pair whose margin is greater than one bound and at most the other.

    Pairs that are far apart teach what the model knows, and those that are close may be mislabelled.
    """
    return all_pairs(ranking, min_margin=min_margin).filter(pl.col("margin") <= max_margin)


def diverse_pairs(ranking: Ranking, *, min_margin: float, per_prompt: int) -> pl.DataFrame:
    """At most ``per_prompt`` pairs of each prompt, in which answers recur as seldom as they can.

    One pair a round: the pair whose two answers have been used least in the rounds before, and of these the
    one with the largest margin. The rounds are few; each is one sort over all prompts.
    """
    left = all_pairs(ranking, min_margin=min_margin).with_columns(_used=pl.lit(0, dtype=pl.Int64))
    taken: list[pl.DataFrame] = []
    for _ in range(per_prompt):
        if left.is_empty():
            break
        order = left.sort("prompt", "_used", "margin", "high", "low", descending=[False, False, True, False, False])
        picked = order.unique("prompt", keep="first", maintain_order=True).select("prompt", "high", "low", "margin")
        taken.append(picked)
        mates = picked.select("prompt", _high="high", _low="low")
        same = [(pl.col(a) == pl.col(b)).cast(pl.Int64) for a in ("high", "low") for b in ("_high", "_low")]
        left = (
            left.join(mates, on="prompt", maintain_order="left")
            .filter((pl.col("high") != pl.col("_high")) | (pl.col("low") != pl.col("_low")))
            .with_columns(_used=pl.col("_used") + pl.sum_horizontal(same))
            .drop("_high", "_low")
        )
    return pl.concat(taken) if taken else left.drop("_used")


def _above(pairs: pl.DataFrame, min_margin: float) -> pl.DataFrame:
    return pairs.filter(pl.col("margin") > min_margin).select("prompt", "high", "low", "margin")
