"""``review_labels``: what people said of pairs, each with who said it."""

from __future__ import annotations

from typing import Final

import dataframely as dy
import polars as pl

from schemas.columns import probability, reference

__all__ = ["VERDICTS", "ReviewLabels"]

VERDICTS: Final = ("better", "tie", "unsure")


class ReviewLabels(dy.Schema):
    """One row a pair and annotator. It names the two answers, so that it holds whichever way the pair stands."""

    pair_id = reference(primary_key=True)
    annotator = dy.String(primary_key=True, min_length=1)
    verdict = dy.String(
        check={"verdict_known": lambda c: c.is_in(VERDICTS)}, description="better: better_id is the better answer"
    )
    better_id = reference(nullable=True)
    worse_id = reference(nullable=True)
    sampling_probability = probability(nullable=True)
    comment = dy.String(nullable=True)

    @dy.rule()
    def better_names_both_answers(cls) -> pl.Expr:
        named = cls.better_id.col.is_not_null() & cls.worse_id.col.is_not_null()
        return (cls.verdict.col == "better") == named
