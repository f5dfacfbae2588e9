"""Whether a refusal classifier tells plain refusals from plain answers. No model is opened here.

What a classifier was trained to read is in its card, and in none of its files: one that was trained on request and
answer, and is given the answer alone, says something all the same.
"""

from __future__ import annotations

from typing import Final

from curation.errors import InputError
from curation.models.protocols import RefusalDetector

__all__ = ["ANSWERS", "REFUSALS", "check_known"]

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
_MOST_WRONG: Final = 2


def check_known(detector: RefusalDetector, model: str) -> None:
    """See that a detector that reads answers alone knows at least six of eight of either kind.

    Raises:
        InputError: when it does not: it is not given what it was trained on, or its labels are not what they seem.
    """
    texts = [*REFUSALS, *ANSWERS]
    refuses = detector.detect([None] * len(texts), texts).probability >= 0.5
    missed = int((~refuses[: len(REFUSALS)]).sum())
    alarms = int(refuses[len(REFUSALS) :].sum())
    if max(missed, alarms) > _MOST_WRONG:
        raise InputError(
            f"refusal detector {model!r}, given the answer alone, takes {missed} of {len(REFUSALS)} plain refusals "
            f"for answers and {alarms} of {len(ANSWERS)} plain answers for refusals: set classifier_input to the "
            "text that its card has, with {prompt} and {response} in it, or refusal_labels, if its labels mean "
            "something else; {response} alone goes without this check (it is in English)"
        )
