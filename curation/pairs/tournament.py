"""Tournaments among a prompt's answers, as statistical rejection sampling pairs them (RSO, Liu et al. 2023).

Answers are drawn into matches; the higher score wins. *First-round-rank* keeps the matches of the first round
(n answers give n // 2 pairs, no answer twice); *tournament-rank* lets the winners go on until one is left.
"""

from __future__ import annotations

import polars as pl

from curation.pairs.ranking import Ranking, draw, with_margin

__all__ = ["tournament_pairs"]


def tournament_pairs(
    ranking: Ranking, *, min_margin: float, seed: int, rounds: int | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The matches of seeded draws whose margin is large enough, and those in which it is not.

    Args:
        ranking: the candidates.
        min_margin: a match's margin must be greater to become a pair; the better one (of two equals, the one
            with the lower identifier) goes on all the same.
        seed: of the draw; the draw of a prompt does not depend on other prompts.
        rounds: 1 is first-round-rank; None plays until each prompt has a winner. With an odd number, the
            last drawn has no match in that round and goes on.

    Returns:
        Pairs (``prompt``, ``high``, ``low``, ``margin``) in the order of the rounds, and the rest likewise.
    """
    numbers = draw(ranking.frame["candidate_id"], seed)
    playing = (
        ranking.frame.select("prompt", "candidate_id")
        .with_row_index("row")
        .with_columns(pl.col("row").cast(pl.Int64), _draw=numbers)
        .sort("prompt", "_draw", "candidate_id")
        .select("prompt", "row")
    )
    played: list[pl.DataFrame] = []
    while rounds is None or len(played) < rounds:
        seat = pl.int_range(pl.len()).over("prompt")
        match = playing.with_columns(_match=seat // 2).group_by("prompt", "_match", maintain_order=True)
        # In the ranking's order the better one has the lower row number.
        matches = match.agg(high=pl.col("row").min(), low=pl.col("row").max()).drop("_match")
        decided = matches.filter(pl.col("high") != pl.col("low"))
        if decided.is_empty():
            break
        played.append(decided)
        playing = matches.select("prompt", row="high")
    empty = ranking.groups.clear().select("prompt", high="start", low="start")
    margins = with_margin(ranking, pl.concat([empty, *played]))
    enough = pl.col("margin") > min_margin
    return margins.filter(enough), margins.filter(~enough)
