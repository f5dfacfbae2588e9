"""``refusals``: whether each candidate refuses, under each detector."""

from __future__ import annotations

from typing import Final

import dataframely as dy

from schemas.columns import identifier, probability

__all__ = ["REFUSAL_CLASSES", "Refusals"]

REFUSAL_CLASSES: Final = ("compliance", "partial_refusal", "full_refusal")


class Refusals(dy.Schema):
    """Ledger of refusal detection."""

    candidate_id = identifier()
    detector = dy.String(primary_key=True)
    refusal_probability = probability()
    refusal_class = dy.String(check={"class_known": lambda c: c.is_in(REFUSAL_CLASSES)})
    refusal_kind = dy.String(nullable=True)
    refusal_category = dy.String(nullable=True)
