"""What is published: preference and its forms, refusal, retrieval. Column names are the trainers'."""

from __future__ import annotations

from typing import Final

import dataframely as dy
import polars as pl

from schemas.columns import SPLITS, identifier, messages, probability, reference

__all__ = ["REFUSAL_KINDS", "Preference", "PreferenceUnpaired", "Refusal", "Retrieval", "RewardAugmented"]

REFUSAL_KINDS: Final = ("refusal", "contrast", "uncertain")


class Preference(dy.Schema):
    """TRL's explicit conversational form, and the evidence."""

    pair_id = identifier()
    prompt_id = reference()
    prompt = messages()
    chosen = messages()
    rejected = messages()
    margin = dy.Float64(nullable=True)
    ref_chosen_logps = dy.Float64(nullable=True)
    ref_rejected_logps = dy.Float64(nullable=True)
    source = dy.String()
    strategy = dy.String()
    split = dy.String(check={"split_known": lambda c: c.is_in(SPLITS)})

    @dy.rule()
    def chosen_is_not_rejected(cls) -> pl.Expr:
        return cls.chosen.col != cls.rejected.col


class PreferenceUnpaired(dy.Schema):
    """TRL's unpaired preference form (KTO)."""

    candidate_id = dy.String(primary_key=True)
    prompt_id = reference()
    prompt = messages()
    completion = messages()
    label = dy.Bool(primary_key=True)
    split = dy.String(check={"split_known": lambda c: c.is_in(SPLITS)})


class RewardAugmented(dy.Schema):
    """A pair under the goal that one of its answers meets (Zhang et al. 2024), in TRL's preference form."""

    pair_id = dy.String(primary_key=True)
    goal_of = dy.String(primary_key=True, check={"side_known": lambda c: c.is_in(("chosen", "rejected"))})
    prompt_id = reference()
    prompt = messages()
    chosen = messages()
    rejected = messages()
    goal = dy.Float64()
    chosen_goal_reward = dy.Float64(description="-(goal - score)²: 0 for the answer whose score the goal is")
    rejected_goal_reward = dy.Float64()
    source = dy.String()
    strategy = dy.String()
    split = dy.String(check={"split_known": lambda c: c.is_in(SPLITS)})

    @dy.rule()
    def chosen_is_not_rejected(cls) -> pl.Expr:
        return cls.chosen.col != cls.rejected.col

    @dy.rule()
    def chosen_meets_the_goal_better(cls) -> pl.Expr:
        return cls.chosen_goal_reward.col >= cls.rejected_goal_reward.col


class Refusal(dy.Schema):
    """Supervised refusals and the answers that contrast with them."""

    candidate_id = identifier()
    prompt_id = reference()
    messages = messages()
    refusal_token = dy.String(min_length=1)
    category = dy.String(nullable=True)
    kind = dy.String(check={"kind_known": lambda c: c.is_in(REFUSAL_KINDS)})
    refusal_probability = probability(nullable=True)
    split = dy.String(check={"split_known": lambda c: c.is_in(SPLITS)})


class Retrieval(dy.Schema):
    """An anchor, its positive and its hard negatives; ``negative_2`` and on are further columns."""

    anchor_id = reference(primary_key=True)
    positive_id = reference(primary_key=True)
    anchor = dy.String(min_length=1)
    positive = dy.String(min_length=1)
    negative_1 = dy.String(min_length=1)
    split = dy.String(check={"split_known": lambda c: c.is_in(SPLITS)})

    @dy.rule()
    def negative_is_not_positive(cls) -> pl.Expr:
        return cls.negative_1.col != cls.positive.col
