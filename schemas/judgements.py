"""``judgements``: what a judge said of two answers, in both orders."""

from __future__ import annotations

import dataframely as dy
import polars as pl

from schemas.columns import identifier, probability, reference

__all__ = ["Judgements"]


class Judgements(dy.Schema):
    """Ledger of comparisons. A is always the answer that stands first, and C a tie; the three add up to 1."""

    comparison_id = identifier(description="of the two answers, whichever of them a pair prefers")
    judge = dy.String(primary_key=True)
    prompt_id = reference()
    first_id = reference()
    second_id = reference()
    first_a = probability()
    first_b = probability()
    first_c = probability()
    swapped_a = probability()
    swapped_b = probability()
    swapped_c = probability()

    @dy.rule()
    def answers_are_in_order(cls) -> pl.Expr:
        return cls.first_id.col < cls.second_id.col
