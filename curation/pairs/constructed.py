"""Pairs of constructed answers: which of the two is the better one is known from how they were made."""

from __future__ import annotations

import polars as pl

from curation.pairs.construction import PAIR_KEY, BuiltPairs, pair_ids
from curation.tables import rejects_frame

__all__ = ["constructed_pairs"]


def constructed_pairs(constructed: pl.DataFrame, *, answers: pl.Series) -> BuiltPairs:
    """Each constructed answer against the answer that it was made to be compared with.

    An answer with an error put into it is rejected and its parent chosen; a refined one is chosen and what it
    was refined from rejected; an off-topic or weaker model's answer is rejected and the prompt's right answer
    chosen. No score has a say in that.

    Args:
        constructed: rows of table ``constructed``; those without ``opponent_id`` make no pair here.
        answers: identifiers of the candidates that there are.

    Returns:
        Pairs with a null margin, and as rejects the constructed answers whose opponent is no candidate
        (``opponent_dropped``).
    """
    opposed = constructed.filter(pl.col("opponent_id").is_not_null())
    there = pl.col("opponent_id").is_in(answers.implode()) & pl.col("candidate_id").is_in(answers.implode())
    chosen = pl.col("role") == "chosen"
    pairs = opposed.filter(there).select(
        "prompt_id",
        chosen_id=pl.when(chosen).then("candidate_id").otherwise("opponent_id"),
        rejected_id=pl.when(chosen).then("opponent_id").otherwise("candidate_id"),
        margin=pl.lit(None, dtype=pl.Float64),
        strategy=pl.lit("constructed"),
    )
    rejects = rejects_frame(
        opposed.filter(~there),
        table="candidates",
        stage="pairs",
        row_id=pl.col("candidate_id"),
        rule="opponent_dropped",
        value=pl.col("opponent_id"),
        reason="the answer that it was made to be compared with is no candidate",
    )
    return BuiltPairs(pair_ids(pairs.unique(PAIR_KEY, keep="first", maintain_order=True)), rejects)
