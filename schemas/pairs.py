"""``pairs`` and ``pair_scores``: two answers to one prompt, and the evidence for their order."""

from __future__ import annotations

from typing import Final

import dataframely as dy
import polars as pl

from schemas.columns import identifier, probability, reference

__all__ = ["JUDGE_VERDICTS", "STRENGTH_BANDS", "PairScores", "Pairs"]

JUDGE_VERDICTS: Final = ("chosen", "rejected", "tie")
STRENGTH_BANDS: Final = ("likely_flipped", "ambiguous", "normal", "very_strong")


class Pairs(dy.Schema):
    """A view over candidates."""

    pair_id = identifier()
    prompt_id = reference()
    chosen_id = reference()
    rejected_id = reference()
    strategy = dy.String(min_length=1)

    @dy.rule()
    def chosen_is_not_rejected(cls) -> pl.Expr:
        return cls.chosen_id.col != cls.rejected_id.col


class PairScores(dy.Schema):
    """The evidence for a pair. A column is null where the recipe leaves its stage out, or the stage failed."""

    pair_id = identifier()
    chosen_rewards = dy.List(dy.Float64(nullable=True), nullable=True)
    rejected_rewards = dy.List(dy.Float64(nullable=True), nullable=True)
    strength_mean = dy.Float64(nullable=True)
    strength_std = dy.Float64(nullable=True, min=0.0)
    strength_length_controlled = dy.Float64(nullable=True)
    agreement = probability(nullable=True)
    label_probability = probability(nullable=True)
    strength_band = dy.String(nullable=True, check={"band_known": lambda c: c.is_in(STRENGTH_BANDS)})
    ches = dy.Float64(nullable=True)
    ln_ches = dy.Float64(nullable=True)
    chosen_tokens = dy.Int64(nullable=True, min=1)
    rejected_tokens = dy.Int64(nullable=True, min=1)
    chosen_logp = dy.Float64(nullable=True)
    rejected_logp = dy.Float64(nullable=True)
    difficulty = dy.Float64(nullable=True)
    cosine = dy.Float64(nullable=True, min=-1.001, max=1.001)
    edit_distance = probability(nullable=True)
    last_hidden = dy.Float64(nullable=True)
    chosen_change = dy.Float64(nullable=True, description="first-order rise of the chosen answer in a step")
    rejected_change = dy.Float64(nullable=True, description="first-order rise of the rejected answer")
    both_fall = dy.Bool(nullable=True, description="gradient entanglement: one step lowers both answers")
    length_ratio = dy.Float64(min=0.0)
    judge_verdict = dy.String(nullable=True, check={"verdict_known": lambda c: c.is_in(JUDGE_VERDICTS)})
    judge_probability = probability(nullable=True)
    judge_consistent = dy.Bool(nullable=True, description="both orders, read alone, name the same winner")
    chosen_refusal_probability = probability(nullable=True)
    rejected_refusal_probability = probability(nullable=True)
    chosen_refusal_class = dy.String(nullable=True)
    rejected_refusal_class = dy.String(nullable=True)
