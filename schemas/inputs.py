"""``inputs``: each row of each source, as it was read, and what it became."""

from __future__ import annotations

from typing import Final

import dataframely as dy
import polars as pl

from schemas.columns import EXPECTED_BEHAVIOURS, messages, reference

__all__ = ["INPUT_KINDS", "VOTES", "Inputs"]

INPUT_KINDS: Final = ("pair", "responses", "unpaired", "prompt", "messages")
VOTES: Final = ("chosen", "rejected", "tie")


class Inputs(dy.Schema):
    """Where everything came from. The last good copy of a source stays here when the source vanishes."""

    input_id = dy.String(primary_key=True, description="'<source>#<row>'")
    source = dy.String(min_length=1)
    row = dy.Int64(min=0, description="0-based position in the source")
    kind = dy.String(check={"kind_known": lambda c: c.is_in(INPUT_KINDS)})
    prompt_id = reference()
    messages = messages()
    responses = dy.List(dy.String(), description="the answers of the row, in its order")
    candidate_ids = dy.List(dy.String(), description="their identifiers")
    scores = dy.List(dy.Float64(nullable=True), nullable=True, description="the row's own scores of them")
    generators = dy.List(dy.String(nullable=True), nullable=True, description="who wrote them, where it is said")
    labels = dy.List(dy.Bool(nullable=True), nullable=True, description="good or bad, for unpaired rows")
    chosen_index = dy.Int64(nullable=True, min=0)
    rejected_index = dy.Int64(nullable=True, min=0)
    category = dy.String(nullable=True)
    expected_behaviour = dy.String(nullable=True, check={"behaviour_known": lambda c: c.is_in(EXPECTED_BEHAVIOURS)})
    annotator = dy.String(nullable=True, description="who gave the label of the row")
    votes = dy.List(
        dy.Struct({"voter": dy.String(), "vote": dy.String(check={"vote_known": lambda c: c.is_in(VOTES)})}),
        nullable=True,
        description="what people said of a pair's two answers",
    )

    @dy.rule()
    def one_id_per_response(cls) -> pl.Expr:
        return cls.responses.col.list.len() == cls.candidate_ids.col.list.len()
