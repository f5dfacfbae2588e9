"""What the columns of published files hold, in a few words for the card. Scores go by the titles of ``summary``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from curation.publish.summary import SCORE_TITLES

__all__ = ["column_meaning"]

_NUMBERED: Final = re.compile(r"_\d+$")
_MEANINGS: Final[Mapping[str, str]] = {
    **SCORE_TITLES,
    "pair_id": "the pair; stays the same from version to version",
    "candidate_id": "the answer; stays the same from version to version",
    "prompt_id": "the prompt; stays the same from version to version",
    "prompt": "the dialogue before the answer",
    "chosen": "the better answer",
    "rejected": "the worse answer",
    "completion": "the answer",
    "label": "whether the answer is a good one",
    "messages": "the whole dialogue",
    "margin": "reward margin that trainers read",
    "ref_chosen_logps": "log-probability of chosen under the policy named below, nats",
    "ref_rejected_logps": "log-probability of rejected under the policy named below, nats",
    "source": "which source it is from",
    "strategy": "how the pair was built",
    "category": "category of the prompt",
    "chosen_rewards": "reward of chosen by each model",
    "rejected_rewards": "reward of rejected by each model",
    "strength_band": "from likely_flipped to very_strong, by the reward margin",
    "label_smoothing": "probability that the label is wrong, as a soft label",
    "weight": "what the pair should count in training",
    "flipped": "whether chosen and rejected were exchanged",
    "label_action": "what was done about the label",
    "chosen_refusal_class": "whether chosen refuses: compliance, partial or full refusal",
    "rejected_refusal_class": "whether rejected refuses: compliance, partial or full refusal",
    "refusal_token": "token that may be put before the answer",
    "refusal_probability": "probability that the answer refuses",
    "kind": "refusal, contrast (an answer where one is right) or uncertain",
    "goal": "score that the prompt asks for",
    "goal_of": "whose score the goal is: chosen or rejected",
    "chosen_goal_reward": "−(goal − score of chosen)²",
    "rejected_goal_reward": "−(goal − score of rejected)²",
    "anchor_id": "the prompt; stays the same from version to version",
    "positive_id": "the right answer; stays the same from version to version",
    "anchor": "the prompt as a text",
    "positive": "a right answer",
    "negative": "a text that is near and not an answer",
}


def column_meaning(name: str) -> str:
    """In a few words what a column holds; empty where its name has to do."""
    return _MEANINGS.get(name) or _MEANINGS.get(_NUMBERED.sub("", name), "")
