"""What an answer wears that changes nothing it says: reasoning before it, Markdown, a tag, a signature. No verdict.

Reasoning is not the answer: a detector that read it would call an answer a refusal because the model thought of
one, and a refusal an answer because its thoughts were long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import polars as pl

from curation.candidates.reasoning import REASONING_MARKERS, split_reasoning
from curation.text import BLANK

__all__ = ["Spoken", "speaks_of_helping", "spelled_out", "spoken", "uncapitalised", "undressed"]

_MARKS: Final = tuple({mark for pair in REASONING_MARKERS for mark in pair})
_FIRST_SIGNS: Final = tuple(sorted({mark[0] for mark in _MARKS}))
_DRESS: Final = ("*", "_", "#", ">", "—", "–", "--")
_QUOTED_LINE: Final = re.compile(r"^[ \t]*(?:>[ \t]?)+", re.MULTILINE)
_HEADING: Final = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+", re.MULTILINE)
_STARS: Final = re.compile(r"(?<![\w*\\])(\*{1,3})(?=[^\s*])([^*\n]{1,400}?)(?<=[^\s*])\1(?![\w*])")
_LINES: Final = re.compile(r"(?<![\w\\])(_{1,2})(?=[^\s_])([^_\n]{1,400} [^_\n]{1,400}?)(?<=[^\s_])\1(?!\w)")
_ONE_ITEM: Final = re.compile(r"^[ \t]*[-*•][ \t]+(?=[^\n]*\Z)")
_SIGNS_FIRST: Final = re.compile(r"^[\u2190-\u2bff\U0001f000-\U0001faff\ufe0f\u200d\s]+(?=[\w\"'“*_>#])")
_SIGNATURE: Final = re.compile(r"[ \t]*(?:[—–]|--)[ \t]*[^\W\d_][\w .'’]{0,40}")
_PLAIN_TAG: Final = re.compile(r"</?(?:p|div|span|b|i|u|em|strong|blockquote|br)[ \t]*/?>", re.IGNORECASE)
_ANY_TAG: Final = re.compile(r"<[a-z!/][^>]*>", re.IGNORECASE)
_APOSTROPHE_CODE: Final = re.compile(r"&(?:#0?39|#x27|apos|rsquo|#8217|#x2019);", re.IGNORECASE)
_APOSTROPHES: Final = re.compile(r"(?<=[^\W\d_])[`´ʼ′＇](?=[^\W\d_])")
_NO_APOSTROPHE: Final = re.compile(
    r"\b(i|we|you|they|it|he|she|that|this|sorry|unfortunately|also|and|but|so) "
    r"(can|won|don|isn|aren|didn|couldn|wouldn|shouldn|doesn|haven|wasn)t\b",
    re.IGNORECASE,
)
_CONTRACTIONS: Final = (
    "cant", "wont", "dont", "isnt", "arent", "didnt", "couldnt", "wouldnt", "shouldnt", "doesnt", "havent", "wasnt",
)  # fmt: skip
"""What two expressions look for; to look for these first is three times as fast."""
_FIRST_NO_APOSTROPHE: Final = re.compile(
    r"\A(can|won|don)t(?= (?:help|assist|do|answer|share|provide|discuss)\b)", re.IGNORECASE
)
_IM: Final = re.compile(
    r"\b(i)m (?=(?:(?:so|very|really|truly|deeply|terribly) )?sorry\b|afraid\b|unable\b|not (?:able|allowed"
    r"|comfortable|going|sure|permitted|willing|capable)\b|(?:just |only )?an? (?:ai|language|text|computer)\b)",
    re.IGNORECASE,
)
_CAPITALISED: Final = re.compile(
    r" (?<=[\w,;:'’] )(?:A|Am|An|And|Are|As|Be|But|By|Can|Can[’']?t|Cannot|Do|Does|Don[’']?t|For|Have|Help|If|In|Is"
    r"|It|Me|My|Not?|Of|On|Or|Sorry|That|These|This|To|Unable|Was|Will|With|Won[’']?t|You|Your)\b"
)
_CAPITALS: Final = re.compile(r"\b[A-Z']{2,} [A-Z']{2,}\b")
_WORD: Final = re.compile(r"[^\W\d_][\w'’]*")
_PIECE: Final = re.compile(r"[^.!?\n]+[.!?]*\s*|[.!?\n]+\s*")
_HELPING: Final = re.compile(
    r"\b(?:request|assist|comply|help (?:with|you)|answer|respond|provide|fulfil+|discuss)\b"
)
_ENDS: Final = re.compile(r"[.!?]")
_OPENING: Final = 300
"""A text that is not written so at its beginning is not looked at."""
_FEWEST: Final = 3
_LONG: Final = 20_000
_MOST_SMALL: Final = 0.4
"""Of a heading's words so many may be small ones: "I Cannot Help with That"."""


class Spoken(NamedTuple):
    """What n answers say."""

    texts: list[str]
    """Without the reasoning before them; an answer that is all reasoning, broken off, as it is."""
    unfinished: list[bool]
    """Whether an answer is all reasoning, and so none yet."""


def spoken(answers: Sequence[str]) -> Spoken:
    """The answers without the reasoning that models write before them, by ``candidates.reasoning``'s markers."""
    texts, unfinished = list(answers), [False] * len(answers)
    rows = [
        row
        for row, text in enumerate(texts)
        if any(sign in text for sign in _FIRST_SIGNS) and any(mark in text for mark in _MARKS)
    ]
    if not rows:
        return Spoken(texts, unfinished)
    given = [texts[row].encode("utf-8", "replace").decode("utf-8") for row in rows]  # lone surrogates
    found = split_reasoning(pl.Series(given, dtype=pl.String))
    for row, answer, _, unclosed in zip(rows, *found.iter_columns(), strict=True):
        unfinished[row] = unclosed
        if not unclosed:
            texts[row] = answer
    return Spoken(texts, unfinished)


def undressed(answer: str) -> str:
    """An answer without Markdown's marks, signs before its first word, plain tags around it and a signature.

    Code stays as it is, and so do lists: they are part of what is said. Likewise what is very long.
    """
    if len(answer) > _LONG:
        return answer
    text = answer.strip(BLANK)
    if "&" in text:
        text = _APOSTROPHE_CODE.sub("'", text)
    if "</" in text and text.startswith("<"):
        text = _without_plain_tags(text)
    if not text or (text[0].isalnum() and not any(mark in text for mark in _DRESS)):
        return text
    before, _, last = text.rpartition("\n")
    if before and _SIGNATURE.fullmatch(last) and not re.search(r"(?m)^[ \t]*[—–-]", before):
        text = before.rstrip()
    if "```" in text:
        return text
    text = _SIGNS_FIRST.sub("", text)
    text = _HEADING.sub("", _QUOTED_LINE.sub("", text))
    if "*" in text:
        text = _STARS.sub(r"\2", text)
    if "_" in text:
        text = _LINES.sub(r"\2", text)
    return _SIGNS_FIRST.sub("", _ONE_ITEM.sub("", text)).strip() or answer


def _without_plain_tags(text: str) -> str:
    """A text in paragraphs; a page or a piece of HTML, which has other tags too or attributes, stays."""
    bare = _PLAIN_TAG.sub(" ", text)
    return text if _ANY_TAG.search(bare) else bare.strip()


def spelled_out(text: str) -> str:
    """A text with the apostrophes that were left out or written as another sign."""
    if not text.isascii() or "`" in text:
        text = _APOSTROPHES.sub("'", text)
    lower = text.lower()
    if any(contraction in lower for contraction in _CONTRACTIONS):
        text = _FIRST_NO_APOSTROPHE.sub(r"\1't", _NO_APOSTROPHE.sub(r"\1 \2't", text))
    return _IM.sub(r"\1'm ", text) if "im " in lower else text


def uncapitalised(text: str) -> str:
    """The text with its sentences that Are Written Like This, or LIKE THIS, in small letters; names elsewhere stay.

    A line alone without a full stop may be the title that was asked for: it stays, unless it speaks of helping.
    """
    opening = text[:_OPENING]
    if _CAPITALISED.search(opening) is None and _CAPITALS.search(opening) is None:
        return text
    if "\n" not in text and _ENDS.search(text) is None and not speaks_of_helping(text.lower()):
        return text
    return _PIECE.sub(lambda m: m[0].lower() if _is_heading(m[0]) else m[0], text)


def speaks_of_helping(text: str) -> bool:
    """Whether a lower-case text has what no song is called that refuses: "I Cannot Help With That Request"."""
    return _HELPING.search(text) is not None


def _is_heading(piece: str) -> bool:
    words = _WORD.findall(piece)
    if len(words) < _FEWEST:
        return False
    if piece.isupper():
        return True
    small = sum(word[0].islower() for word in words)
    return small <= _MOST_SMALL * len(words) and _CAPITALISED.search(piece) is not None
