"""``constructed``: answers that were made on purpose, and what they may be used for."""

from __future__ import annotations

from typing import Final

import dataframely as dy
import polars as pl

from schemas.columns import ORIGINS, identifier, reference

__all__ = ["CONSTRUCTIONS", "Constructed"]

CONSTRUCTIONS: Final = (
    "subtle_error",
    "refined",
    "off_topic",
    "weaker_model",
    "template_refusal",
    "template_forget",
)


class Constructed(dy.Schema):
    """A constructed answer. One of role ``rejected`` is never chosen over another answer by a score."""

    candidate_id = identifier()
    prompt_id = reference()
    response = dy.String(min_length=1)
    construction = dy.String(check={"construction_known": lambda c: c.is_in(CONSTRUCTIONS)})
    detail = dy.String(nullable=True, description="the kind of error, the template's list")
    role = dy.String(check={"role_known": lambda c: c.is_in(("chosen", "rejected"))})
    opponent_id = reference(nullable=True)
    origin = dy.String(check={"origin_known": lambda c: c.is_in(ORIGINS)})
    parent_id = reference(nullable=True)
    generator = dy.String(nullable=True)
    parameters = dy.String(nullable=True, description="JSON")
    finish_reason = dy.String(nullable=True)
    prompt_tokens = dy.Int64(nullable=True, min=0)
    completion_tokens = dy.Int64(nullable=True, min=0)
    cost = dy.Float64(nullable=True, min=0.0)
    reasoning = dy.String(nullable=True)

    @dy.rule()
    def opponent_is_another(cls) -> pl.Expr:
        return cls.opponent_id.col.is_null() | (cls.opponent_id.col != cls.candidate_id.col)
