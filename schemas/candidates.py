"""``candidates``: every distinct answer to every prompt."""

from __future__ import annotations

import dataframely as dy
import polars as pl

from schemas.columns import ORIGINS, identifier, reference

__all__ = ["Candidates", "Generations"]


class Candidates(dy.Schema):
    """An answer and where it came from. Equal answers to one prompt are one row; ``occurrences`` counts them."""

    candidate_id = identifier()
    prompt_id = reference()
    response = dy.String(min_length=1)
    origin = dy.String(check={"origin_known": lambda c: c.is_in(ORIGINS)})
    generator = dy.String(nullable=True)
    parameters = dy.String(nullable=True, description="JSON")
    sample_index = dy.Int64(nullable=True, min=0)
    finish_reason = dy.String(nullable=True)
    prompt_tokens = dy.Int64(nullable=True, min=0)
    completion_tokens = dy.Int64(nullable=True, min=0)
    cost = dy.Float64(nullable=True, min=0.0, description="in the currency of the recipe's prices")
    parent_id = reference(nullable=True)
    reasoning = dy.String(nullable=True, description="what the model wrote before its answer")
    occurrences = dy.Int64(min=1)
    provided_score = dy.Float64(
        nullable=True, description="the mean of the sources' own scores; null where these are on several scales"
    )

    @dy.rule()
    def generated_has_generator(cls) -> pl.Expr:
        return (cls.origin.col != "generated") | cls.generator.col.is_not_null()

    @dy.rule()
    def response_not_blank(cls) -> pl.Expr:
        return cls.response.col.str.strip_chars().str.len_bytes() > 0


class Generations(dy.Schema):
    """Ledger of sampled answers: one row for each prompt, generator and sample index that was paid for."""

    request_id = dy.String(primary_key=True, description="hash of prompt and sample index")
    generator = dy.String(primary_key=True)
    prompt_id = reference()
    sample_index = dy.Int64(min=0)
    response = dy.String()
    reasoning = dy.String(nullable=True, description="what the server set apart as reasoning")
    finish_reason = dy.String()
    prompt_tokens = dy.Int64(min=0)
    completion_tokens = dy.Int64(min=0)
    cost = dy.Float64(nullable=True, min=0.0, description="null where the recipe had no price")
    system_prompt = dy.String(nullable=True, description="the sample's own, where the recipe draws one")
