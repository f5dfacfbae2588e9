"""Forms of English verbs: enough to move a request into another tense. Sentences are in ``tenses``."""

from __future__ import annotations

import re
from typing import Final

from curation.prompts.mutations.words import words

__all__ = ["base_form", "is_past_form", "is_plain_verb", "past_form"]

_IRREGULAR: Final[dict[str, str]] = words()["irregular_verbs"]
_PASTS: Final = frozenset(_IRREGULAR.values()) - _IRREGULAR.keys()
_DOUBLED: Final = frozenset(words()["doubled"].split())
_SIBILANT: Final = re.compile(r"(?:s|x|z|ch|sh|o)es$")
_VOWEL_Y: Final = re.compile(r"[aeiou]y$")
_WORD: Final = re.compile(r"[a-z]+(?:-[a-z]+)?$")


def past_form(verb: str) -> str:
    """The simple past of a verb's base form."""
    lower = verb.lower()
    prefix, hyphen, stem = lower.rpartition("-")
    if stem in _IRREGULAR:
        return f"{prefix}{hyphen}{_IRREGULAR[stem]}"
    if lower.endswith("y") and not _VOWEL_Y.search(lower):
        return f"{lower[:-1]}ied"
    if lower in _DOUBLED:
        return f"{lower}{lower[-1]}ed"
    ending = "d" if lower.endswith("e") else "ked" if lower.endswith("c") else "ed"
    return f"{lower}{ending}"


def base_form(verb: str) -> str:
    """The base form of a verb in the third person singular: ``makes`` to ``make``; others as they are."""
    lower = verb.lower()
    special = {"has": "have", "does": "do", "goes": "go", "is": "be", "lies": "lie", "dies": "die", "ties": "tie"}
    if lower in special:
        return special[lower]
    if lower.endswith("ies"):
        return f"{lower[:-3]}y"
    if _SIBILANT.search(lower) and not lower.endswith(("ses", "zes", "oes")):
        return lower[:-2]
    if lower.endswith(("sses", "zzes", "oes")):
        return lower[:-2]
    return lower[:-1] if lower.endswith("s") and not lower.endswith("ss") else lower


def is_past_form(word: str) -> bool:
    """Whether a word is a past already (``lost``, ``saved``), and not a base form as well (``cut``, ``lay``)."""
    lower = word.lower()
    return lower in _PASTS or lower.endswith("ed")


def is_plain_verb(word: str) -> bool:
    """Whether a word can be a verb's base form: letters only, and not an ending that verbs have in no base form."""
    return bool(_WORD.match(word.lower())) and not word.lower().endswith(("ing", "ly", "tion", "ness", "ment's"))
