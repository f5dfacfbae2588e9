"""``policy_stats``: what one forward pass of the policy over a prompt and its candidates says."""

from __future__ import annotations

import dataframely as dy
import polars as pl

from schemas.columns import identifier, reference

__all__ = ["PolicyStats"]


class PolicyStats(dy.Schema):
    """Ledger of policy passes: k candidates, and k x k matrices stored row by row."""

    stats_id = identifier(description="hash of the prompt and the set of its candidates")
    policy = dy.String(primary_key=True)
    prompt_id = reference()
    prompt_tokens = dy.Int64(min=0)
    candidate_ids = dy.List(dy.String(), min_length=1)
    tokens = dy.List(dy.Int64(min=1))
    logps = dy.List(dy.Float64(), description="summed log-probability of each answer, in nats")
    gram = dy.List(dy.Float64(), description="inner products of summed hidden states")
    last_gram = dy.List(dy.Float64(), description="inner products of the last of those states")
    edit = dy.List(dy.Float64(), description="token edit distance over the longer length")
    grad_gram = dy.List(
        dy.Float64(),
        nullable=True,
        description="inner products of the gradients in the output layer, where asked for",
    )

    @dy.rule()
    def tokens_match_candidates(cls) -> pl.Expr:
        return cls.tokens.col.list.len() == cls.candidate_ids.col.list.len()

    @dy.rule()
    def logps_match_candidates(cls) -> pl.Expr:
        return cls.logps.col.list.len() == cls.candidate_ids.col.list.len()

    @dy.rule()
    def gram_is_square(cls) -> pl.Expr:
        return cls.gram.col.list.len() == cls.candidate_ids.col.list.len() ** 2
