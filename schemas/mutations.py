"""``mutations``: prompts that were made from prompts of the sources."""

from __future__ import annotations

import dataframely as dy

from schemas.columns import EXPECTED_BEHAVIOURS, messages, reference

__all__ = ["Mutations"]


class Mutations(dy.Schema):
    """One row for each mutated prompt and the prompt that it was made from."""

    prompt_id = reference(primary_key=True)
    parent_id = reference(primary_key=True)
    mutation = dy.String(min_length=1)
    messages = messages()
    source = dy.String(min_length=1)
    category = dy.String(nullable=True)
    expected_behaviour = dy.String(nullable=True, check={"behaviour_known": lambda c: c.is_in(EXPECTED_BEHAVIOURS)})
    generator = dy.String(nullable=True)
    cost = dy.Float64(nullable=True, min=0.0)
