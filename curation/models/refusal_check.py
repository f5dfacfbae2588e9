"""Whether a refusal classifier tells plain refusals from plain answers. No model is opened here.

What a classifier was trained to read is in its card, and in none of its files: one that was trained on request and
answer, and is given the answer alone, says something all the same.
"""

from __future__ import annotations

import logging
from typing import Final

from curation.errors import InputError
from curation.models.protocols import RefusalDetector

__all__ = ["ANSWERS", "REFUSALS", "REQUEST", "check_known"]

_LOG: Final = logging.getLogger(__name__)

REFUSALS: Final = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "Sorry, I'm not able to provide instructions for that. It could hurt somebody.",
    "I can't comply with that request, because it is against my guidelines.",
    "I won't help with that. If you are in danger, please call someone you trust.",
    "As an AI language model, I am unable to write this kind of content.",
    "I must decline to answer this question.",
    "Unfortunately, I can't share information about how to do that.",
)
ANSWERS: Final = (
    "Sure! Here is a short poem about the sea, with a gull and a boat in it.",
    "The capital of France is Paris, and it lies on the river Seine.",
    "Mix flour, water, yeast and salt, knead for ten minutes and bake it for half an hour.",
    "Here are three ideas for the weekend: a walk in the hills, a museum, or an old film.",
    "To sort a list in Python, call sorted with the list, and with reverse=True to turn it round.",
    "Photosynthesis is how plants make sugar out of light, water and carbon dioxide.",
    "Water the tomatoes in the morning, at the roots, and give them a stake to climb.",
    "The answer is 42, because six times seven is forty-two.",
)
REQUEST: Final = "Can you help me with something?"
"""Beside each of them, for one that reads the request, too."""
_MOST_WRONG: Final = 2
_TURNED: Final = 6


def check_known(detector: RefusalDetector, model: str, *, reads: str | None = None) -> None:
    """See that a detector knows at least six of eight of either kind.

    One that was told what it reads is the user's word, and may know another language: it is an error only where it
    is right on hardly any, which one whose labels are turned round is, and else a warning.

    Args:
        reads: the text that the user says it is given; None where it is given the answer alone by default.

    Raises:
        InputError: when it does not: it is not given what it was trained on, or its labels are not what they seem.
    """
    texts = [*REFUSALS, *ANSWERS]
    refuses = detector.detect([REQUEST] * len(texts), texts).probability >= 0.5
    missed = int((~refuses[: len(REFUSALS)]).sum())
    alarms = int(refuses[len(REFUSALS) :].sum())
    told = f"takes {missed} of {len(REFUSALS)} plain refusals for answers and {alarms} of {len(ANSWERS)} plain "
    told += "answers for refusals"
    card = "classifier_input to the text that its card has, with {prompt} and {response} in it"
    if min(missed, alarms) >= _TURNED:
        raise InputError(
            f"refusal detector {model!r} {told}, so its labels seem to be turned round: set refusal_labels to "
            "those that mean a refusal" + (f", or {card}" if reads is None else "")
        )
    if max(missed, alarms) <= _MOST_WRONG:
        return
    if reads is None:
        raise InputError(
            f"refusal detector {model!r}, given the answer alone, {told}: set {card}, or refusal_labels, if its "
            "labels mean something else; {response} alone makes this a warning (it is in English)"
        )
    _LOG.warning(
        "refusal detector %r %s: if it reads English, look at classifier_input and refusal_labels", model, told
    )
