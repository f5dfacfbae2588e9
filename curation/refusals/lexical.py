"""What an answer's words say about refusing: n-grams and cues, by where they stand. No weights, no decision.

Refusals are recognised by how an answer begins and ends, so only these parts are read. Words inside
quotation marks and code are set aside first (a quoted refusal is not a refusal), and names are replaced
by one token, so that nothing is learned about the people in the training data.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.refusals.dressing import spelled_out, uncapitalised, undressed
from curation.refusals.languages import has_no_english, is_other_language

__all__ = ["OPENING_WORDS", "Reading", "cue_names", "cues", "grams", "load_lexicon", "ngrams", "phrases_in", "read"]

OPENING_CHARACTERS: Final = 1_000
CLOSING_CHARACTERS: Final = 300
OPENING_WORDS: Final = 30
_SHORT: Final = 200

_CODE: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_QUOTE: Final = re.compile(r"[\"“„«「]([^\"“”„«»「」]{3,400})[\"”“»」]")
_NAME: Final = re.compile(
    r"(?<![.!?:\n] )(?<!^)(?<!\n)\b(?!AI\b|OpenAI|I\b|I')[A-Z][\w.'-]*(?:\s+(?:of |the )?[A-Z][\w.'-]*)*"
)
_TOKEN: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:'[^\W_]+)?|[^\w\s]")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n+|(?<=[。！？])")
_LIST_ITEM: Final = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+", re.MULTILINE)
_ENGLISH: Final = re.compile(r"\b(?:the|is|and|you|that|it's|i'm)\b")
_DIGIT: Final = re.compile(r"\d")
_SPACES: Final = re.compile(r"[ \t]+")
_CURLY: Final = str.maketrans({"\u2019": "'", "\u2018": "'", "\u00a0": " "})
_FEW_NON_ASCII: Final = 0.2
_POSITIONS: Final = ("first", "second", "later", "last")
_MOST_COUNTED: Final = (2, 2, 4, 2)
_NONE: Final = (0.0, 0.0, 0.0, 0.0)
_SHAPE: Final = ("words", "items", "code", "quotes", "questions", "non_ascii", "sentences", "short", "digits")


class Reading(NamedTuple):
    """The parts of one answer that are looked at, without quotations and code."""

    sentences: list[str]
    """Of the opening and the ending, lower case."""
    masked: str
    """The same text with names replaced; case kept but in headings, whose words all begin with a capital."""
    shape: tuple[float, ...]
    """Length and layout of the whole answer."""
    cut: bool
    """Whether the middle of the answer was left out."""
    capitals: bool
    """Whether all its letters are capitals."""
    foreign: bool
    """Whether it is in another script than Latin, or in another language than English."""
    maybe_foreign: bool
    """Whether it may be: some words, and no common English one ("Declining. Violates policy." has none, either)."""
    named: str
    """Of a short answer the text with all that may be a name replaced, a title of many capitals too; else empty."""

    @property
    def mostly_latin(self) -> bool:
        """Whether few characters are outside ASCII."""
        return self.shape[_SHAPE.index("non_ascii")] < _FEW_NON_ASCII


def load_lexicon(path: Path) -> dict[str, tuple[str, ...]]:
    """Groups of phrases, in the file's order."""
    groups = json.loads(path.read_text(encoding="utf-8"))
    return {name: tuple(dict.fromkeys(phrases)) for name, phrases in groups.items()}


def read(answer: str) -> Reading:
    """The opening and the ending of an answer, cleaned."""
    text = answer.strip()
    if not text.isascii():
        text = text.translate(_CURLY)
    cut = len(text) > OPENING_CHARACTERS + CLOSING_CHARACTERS
    if cut:
        text = f"{text[:OPENING_CHARACTERS]}\n{text[-CLOSING_CHARACTERS:]}"
    text = spelled_out(undressed(text))
    plain = _SPACES.sub(" ", _QUOTE.sub(" qquote ", _CODE.sub(" qcode ", text))).strip()
    if len(plain) < 12 and "qcode" not in plain:
        plain = text  # the whole answer stands in quotation marks
    sentences = [s for s in (part.strip() for part in _SENTENCE_END.split(plain.lower())) if s]
    small = uncapitalised(plain)
    masked = _NAME.sub("qname", small)
    named = "" if len(plain) > _SHORT else masked if small is plain else _NAME.sub("qname", plain)
    shape = _shape(answer, text, plain, sentences)
    whole = "\n".join(sentences)
    foreign = shape[_SHAPE.index("non_ascii")] >= _FEW_NON_ASCII or is_other_language(whole)
    return Reading(sentences, masked, shape, cut, plain.isupper(), foreign, has_no_english(whole), named)


def _shape(answer: str, text: str, plain: str, sentences: Sequence[str]) -> tuple[float, ...]:
    words = answer.count(" ") + 1
    length = max(1, len(text))
    return (
        float(np.log1p(words)) / 5,
        min(len(_LIST_ITEM.findall(text)), 10) / 5,
        float("qcode" in plain),
        min(plain.count("qquote"), 3) / 3,
        min(plain.count("?"), 3) / 3,
        0.0 if text.isascii() else sum(c > "\x7f" for c in text[:400]) / min(length, 400),
        min(len(sentences), 12) / 12,
        float(words <= 40),
        len(_DIGIT.findall(text[:400])) / min(length, 400),
    )


def cue_names(lexicon: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of what ``cues`` counts, in its order."""
    names = [f"{group}:{position}" for group in lexicon for position in _POSITIONS]
    return [*names, *_SHAPE]


def phrases_in(readings: Sequence[Reading], lexicon: Mapping[str, Sequence[str]]) -> list[frozenset[str]]:
    """The phrases of all groups that stand in each answer: one pass over the text, however many there are."""
    phrases = list(dict.fromkeys(phrase for group in lexicon.values() for phrase in group))
    texts = ["\n".join(reading.sentences) for reading in readings]
    safe = [t if t.isascii() else t.encode("utf-8", "replace").decode("utf-8") for t in texts]  # lone surrogates
    found = pl.Series(safe, dtype=pl.String).str.extract_many(phrases, overlapping=True)
    return [frozenset(row) for row in found.to_list()]


def cues(
    reading: Reading, lexicon: Mapping[str, Sequence[str]], present: frozenset[str]
) -> npt.NDArray[np.float32]:
    """How many phrases of each group stand in the first, second, later and last sentence; and the shape.

    Args:
        reading: an answer.
        lexicon: groups of phrases.
        present: those that ``phrases_in`` found in it.
    """
    sentences = reading.sentences
    first = sentences[0] if sentences else ""
    second = sentences[1] if len(sentences) > 1 else ""
    later = " ".join(sentences[2:-1])
    last = sentences[-1] if len(sentences) > 2 else ""
    whole = "\n".join(sentences)
    parts = tuple(zip((first, second, later, last), _MOST_COUNTED, strict=True))
    values: list[float] = []
    english = _ENGLISH.search(whole) is not None
    for group, phrases in lexicon.items():
        if present.isdisjoint(phrases) or (english and group.startswith("foreign_")):
            values.extend(_NONE)
            continue
        mine = [phrase for phrase in phrases if phrase in present]
        values.extend(min(sum(phrase in part for phrase in mine), most) / most for part, most in parts)
    values.extend(reading.shape)
    return np.asarray(values, dtype=np.float32)


def grams(reading: Reading) -> list[str]:
    """Single words and pairs; those of the first words stand there once more, marked ``^``."""
    tokens = _TOKEN.findall(reading.masked.lower())
    pairs = [f"{a} {b}" for a, b in pairwise(tokens)]
    opening = tokens[:OPENING_WORDS] + pairs[: OPENING_WORDS - 1]
    return [*tokens, *pairs, *("^" + gram for gram in opening)]


def ngrams(reading: Reading) -> Counter[str]:
    """How often each of ``grams`` is there."""
    return Counter(grams(reading))
