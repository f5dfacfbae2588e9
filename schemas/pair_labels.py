"""``pair_labels``: what is done with the label of each pair, and why."""

from __future__ import annotations

from typing import Final

import dataframely as dy

from schemas.columns import identifier, probability

__all__ = ["NOISE_SCORES", "SUGGESTIONS", "PairLabels"]

SUGGESTIONS: Final = ("keep", "drop", "flip")
NOISE_SCORES: Final = ("label_noise_probability", "label_margin", "annotator_loss_rank", "vote_probability")
"""What label noise measures of a pair, in the order that the pair had then."""


class PairLabels(dy.Schema):
    """A view over pairs: pairs and candidates stay as they are."""

    # The pair's as it was built: with ``flipped``, what is published under it has its answers the other way round.
    pair_id = identifier()
    action = dy.String(min_length=1, description="keep, drop, or the others of the band by +, as flip+margin")
    flipped = dy.Bool(description="chosen and rejected change places in what is published")
    label_smoothing = dy.Float64(min=0.0, max=1.0)
    weight = dy.Float64(min=0.0)
    target_margin = dy.Float64(min=0.0, nullable=True, description="null where no band asks for margins")
    label_noise_probability = probability(nullable=True)
    label_margin = dy.Float64(nullable=True, description="log-odds of the text model alone, out of fold")
    # The label's loss among its annotator's; null where no source has annotators.
    annotator_loss_rank = probability(nullable=True)
    # Of people's votes alone; null where nobody voted.
    vote_probability = probability(nullable=True)
    suggested_action = dy.String(nullable=True, check={"suggestion_known": lambda c: c.is_in(SUGGESTIONS)})
    in_cycle = dy.Bool(description="on a circle of preferences, in the order that flips leave")
