"""How texts are shown to a judge and how its reply is taken apart, whatever it judges. No model is called here.

A text stands between two lines with a marker that is a hash of all texts of the request and is in none of them: who
writes a text cannot know its marker, so no text can close its own block, and the same texts are always asked about
in the same words. What the questions are and what a field means is in ``refusal_judge`` and ``rewards``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from curation.text import content_hash

__all__ = ["CHARACTERS_READ", "block", "both_ends", "marker", "reply_object"]

_FENCE: Final = re.compile(r"^```(?:json)?\s*|\s*```$")
_LENGTH: Final = 16
_HEAD: Final = 6_000
_TAIL: Final = 2_000
CHARACTERS_READ: Final = _HEAD + _TAIL
"""Of a longer text, both ends."""


def marker(*texts: str) -> str:
    """A word that is in none of the texts, and is the same whenever the texts are."""
    mark = content_hash("marker", *texts)[:_LENGTH]
    while any(mark in text for text in texts):
        mark = content_hash("marker", mark, *texts)[:_LENGTH]
    return mark


def block(mark: str, title: str, text: str) -> str:
    """A text between its two lines."""
    return f"[{mark} {title} BEGINS]\n{text}\n[{mark} {title} ENDS]"


def both_ends(text: str) -> str:
    """A text, or of a long one the beginning and the end."""
    return text if len(text) <= CHARACTERS_READ else f"{text[:_HEAD]}\n[…]\n{text[-_TAIL:]}"


def reply_object(text: str) -> Mapping[str, Any] | None:
    """The one JSON object that a reply consists of; None for anything else.

    A code fence around it is taken off. A reply that is nested too deeply, or has a number that Python does not
    read, is no object either.
    """
    try:
        value = json.loads(_FENCE.sub("", text.strip()))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
