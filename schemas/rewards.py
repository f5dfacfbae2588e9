"""``rewards``: the reward of each candidate under each reward model."""

from __future__ import annotations

import dataframely as dy

from schemas.columns import identifier

__all__ = ["Rewards"]


class Rewards(dy.Schema):
    """Ledger of reward-model passes. One model may give several rewards: an ensemble, or attributes.

    An attribute that failed alone is null, and the failure is in table ``failures``.
    """

    candidate_id = identifier()
    model = dy.String(primary_key=True)
    rewards = dy.List(
        dy.Float64(nullable=True), min_length=1, description="in the model's own unit; finite, or null"
    )
