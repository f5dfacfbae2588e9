"""``prompts``: each distinct prompt once."""

from __future__ import annotations

import dataframely as dy

from schemas.columns import EXPECTED_BEHAVIOURS, SPLITS, identifier, messages, reference

__all__ = ["Prompts"]


class Prompts(dy.Schema):
    """A prompt, where it was first seen, and what is expected of an answer to it."""

    prompt_id = identifier()
    messages = messages()
    source = dy.String(min_length=1)
    category = dy.String(nullable=True)
    expected_behaviour = dy.String(nullable=True, check={"behaviour_known": lambda c: c.is_in(EXPECTED_BEHAVIOURS)})
    family_id = reference()
    parent_id = reference(nullable=True)
    mutation = dy.String(nullable=True, description="how it was made from its parent; null for a source's prompt")
    group_id = dy.String(
        nullable=True, description="prompts that share it are in one split: families, near-duplicates"
    )
    split = dy.String(check={"split_known": lambda c: c.is_in(SPLITS)})
    split_plan = dy.String(nullable=True, description="hash of the settings under which the split was given")
