"""Answers in other languages than English: which they are, and what their first sentences say about refusing.

The bundled model learned from English: of another language's words it knows little, and a negation is enough for it
to see a refusal. There the phrases of ``language_phrases.json`` decide, and where none stands nobody knows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["PHRASES", "Said", "has_no_english", "is_other_language", "opening_words", "what_is_said"]

PHRASES: Final = Path(__file__).with_name("language_phrases.json")
"""In small letters: common words of languages; phrases that refuse, deflect, do not know, agree."""
_FIRST_SENTENCES: Final = 2
_FIRST_CHARACTERS: Final = 200
"""Of a sentence so much is read."""

_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_MOST_READ: Final = 600
_FEWEST: Final = 2
_SENTENCE: Final = 4
"""So many words, and a sentence in English has one that is common."""
_SURELY: Final = 6
"""So many common English words, and it is English: no other need be looked for."""
_ACCENTED: Final = re.compile(r"[À-ÖØ-öø-ɏḀ-ỿ]")


def is_other_language(text: str) -> bool:
    """Whether the words of one other language are more than the English ones, and at least two.

    In a text without a common English word, words with an accent count as such words, two at most.

    Args:
        text: lower case; its beginning is looked at.
    """
    known = _words()
    if len(known.common.intersection(text[:_MOST_READ].split())) >= _SURELY:
        return False
    words = opening_words(text)
    english = len(words & known.common)
    counts: Counter[str] = Counter()
    for word in words & known.others.keys():
        counts.update(known.others[word])
    most = max(counts.values(), default=0)
    if not english:
        # Two such words are enough by themselves: no list of words knows every language's.
        most += min(sum(_ACCENTED.search(word) is not None for word in words), _FEWEST)
    return most >= _FEWEST and most > english


def has_no_english(text: str) -> bool:
    """Whether four words or more are there and no common English one: another language, or a list of names.

    Args:
        text: lower case; its beginning is looked at.
    """
    english = _words().english
    if not english.isdisjoint(text[:_MOST_READ].split()):
        return False
    words = opening_words(text)
    return len(words) >= _SENTENCE and english.isdisjoint(words)


def opening_words(text: str) -> set[str]:
    """The words at the beginning of a text by which its language is told."""
    return set(_WORD.findall(text[:_MOST_READ]))


class Said(NamedTuple):
    """What the first sentences of n answers say, by the known phrases."""

    refuses: npt.NDArray[np.bool_]
    """(n,), one of the first two refuses, changes the subject or does not know, and the first does not agree."""
    agrees: npt.NDArray[np.bool_]
    """(n,), the first agrees, and neither refuses."""


def what_is_said(answers: Sequence[Sequence[str]]) -> Said:
    """What the first sentences of answers say.

    Args:
        answers: the sentences of each, in small letters.
    """
    refusing, agreeing = _phrases()
    first = _found([" ".join(sentences[:1]) for sentences in answers], [*refusing, *agreeing])
    second = _found(["\n".join(sentences[1:_FIRST_SENTENCES]) for sentences in answers], [*refusing])
    at_once = np.array([bool(refusing & set(found)) for found in first], dtype=bool)
    agrees = np.array([bool(agreeing & set(found)) for found in first], dtype=bool)
    later = np.array([bool(found) for found in second], dtype=bool)
    return Said(at_once | (later & ~agrees), agrees & ~at_once & ~later)


def _found(texts: Sequence[str], phrases: list[str]) -> list[list[str]]:
    safe = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # lone surrogates
    column = pl.Series(safe, dtype=pl.String).str.head(_FIRST_CHARACTERS)
    found: list[list[str]] = column.str.extract_many(phrases, overlapping=True).to_list()
    return found


class _Words(NamedTuple):
    common: frozenset[str]
    """Common words of English alone."""
    others: dict[str, tuple[str, ...]]
    """Those of other languages, with their languages."""
    english: frozenset[str]
    """Common words that are English, be they another language's as well."""


@cache
def _words() -> _Words:
    content = json.loads(PHRASES.read_text(encoding="utf-8"))
    english = frozenset(content["english_words"].split())
    nothing = english | set(content["words_that_tell_nothing"].split())
    found: dict[str, tuple[str, ...]] = {}
    for language, words in content["common_words"].items():
        for word in words.split():
            if word not in nothing:
                found[word] = (*found.get(word, ()), language)
    return _Words(english, found, frozenset(word for word in nothing if len(word) > 1 or word in "ai"))


@cache
def _phrases() -> tuple[frozenset[str], frozenset[str]]:
    """Those that refuse, and those that agree."""
    content = json.loads(PHRASES.read_text(encoding="utf-8"))
    refusing = [phrase for phrases in content["refuses"].values() for phrase in phrases]
    return frozenset([*refusing, *content["deflects"], *content["does_not_know"]]), frozenset(content["agrees"])
