"""``refusals``: whether each candidate refuses. ``requests``: whether each prompt should be refused."""

from __future__ import annotations

from typing import Final

import dataframely as dy

from schemas.columns import SPLITS, identifier, probability, reference

__all__ = [
    "REFUSAL_CLASSES",
    "REFUSAL_FAULTS",
    "REFUSAL_KINDS",
    "RefusalPairs",
    "RefusalQuotas",
    "Refusals",
    "Requests",
]

REFUSAL_CLASSES: Final = ("compliance", "partial_refusal", "full_refusal")
REFUSAL_KINDS: Final = (
    "declined",
    "deflected",
    "disclaimed",
    "contradicted",
    "dont_know",
    "capability_limit",
    "empty_or_filtered",
)
REFUSAL_FAULTS: Final = ("over_refusal", "unsafe_compliance")


class Refusals(dy.Schema):
    """Ledger of refusal detection."""

    candidate_id = identifier()
    detector = dy.String(primary_key=True)
    refusal_probability = probability()
    refusal_class = dy.String(check={"class_known": lambda c: c.is_in(REFUSAL_CLASSES)})
    refusal_kind = dy.String(nullable=True)
    refusal_category = dy.String(nullable=True)
    refusal_truncated = dy.Bool(
        nullable=True, description="only the answer's beginning and end were read; null: not recorded"
    )


class Requests(dy.Schema):
    """Ledger of what is thought of each prompt."""

    prompt_id = identifier()
    model = dy.String(primary_key=True)
    refuse_probability = probability()
    look_alike_probability = probability()
    refuse_reason = dy.String(nullable=True, description="one of CoCoNot's five, where it should be refused")
    refusal_category = dy.String(nullable=True, description="of the recipe's taxonomy; null: near to none")


class RefusalPairs(dy.Schema):
    """Faults turned round: the answer that behaves as it should against the one that does not."""

    prompt_id = reference(primary_key=True)
    chosen_id = reference(primary_key=True)
    rejected_id = reference(primary_key=True)
    fault = dy.String(check={"fault_known": lambda c: c.is_in(REFUSAL_FAULTS)})
    split = dy.String(check={"split_known": lambda c: c.is_in(SPLITS)})


class RefusalQuotas(dy.Schema):
    """Every quota of the dataset ``refusal``, and what there is for it. Rows of R-Tuning do not count."""

    category = dy.String(primary_key=True)
    wanted = dy.Int64(min=0)
    kept = dy.Int64(min=0)
    missing = dy.Int64(min=0, description="never padded")
    contrast_from = dy.Int64(
        nullable=True,
        description="the least quota with room for contrast, where this one takes refusals alone; null elsewhere",
    )
