"""``voters``: how far each person who labelled or voted, and each reward model, can be believed."""

from __future__ import annotations

from typing import Final

import dataframely as dy

from schemas.columns import probability

__all__ = ["VOTER_KINDS", "Voters"]

VOTER_KINDS: Final = ("annotator", "voter", "reward model")


class Voters(dy.Schema):
    """Found with the labels of table ``pair_labels``, the last time that they were fitted."""

    kind = dy.String(primary_key=True, check={"kind_known": lambda c: c.is_in(VOTER_KINDS)})
    name = dy.String(primary_key=True)
    labels = dy.Int64(min=0, description="pairs that they labelled or voted on")
    reliability = probability()
    median_loss = dy.Float64(nullable=True, min=0.0, description="of an annotator's labels, nats (PLD)")
