"""Whether an answer is right: equal to a known right one, or what a function of the user's says."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import polars as pl

from curation.errors import ModelError
from curation.functions import named_function
from curation.text import Message, normalise

__all__ = ["EXACT_MATCH", "answer_key", "final_answer", "verify"]

EXACT_MATCH: Final = "exact_match"
_BOXED: Final = re.compile(r"\\boxed\s*\{")
_HASHES: Final = re.compile(r"####[ \t]*(\S[^\n]*)")
_SAID: Final = re.compile(
    r"\b(?:final answer|the answer|answer)(?:[ \t]+is|[ \t]*[:=])[ \t]*(?:\*\*)?[ \t]*(\S[^\n]*)", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:[ \t]*/[ \t]*\d+)?")
_SHORT: Final = 60


def final_answer(text: str) -> str:
    """What an answer comes to: the last of ``\\boxed{…}``, ``#### …`` or "the answer is …"; else a short text
    itself; else its last number. Empty where there is none of these.
    """
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    for pattern in (_HASHES, _SAID):
        found = pattern.findall(text)
        if found:
            return _trimmed(found[-1])
    if len(text.strip()) <= _SHORT and "\n" not in text.strip():
        return _trimmed(text)
    numbers = [m.group() for m in _NUMBER.finditer(text) if m.group().strip()]
    return numbers[-1] if numbers else ""


def answer_key(text: str) -> str:
    """What is the same for answers that come to the same: of ``exact_match``, as text. Empty where that cannot
    be read."""
    found = final_answer(text)
    number = _number(found) if found else None
    return _plain(found) if number is None else str(number)


def verify(
    verifier: str, prompts: Sequence[Sequence[Message]], responses: Sequence[str], right: Sequence[Sequence[str]]
) -> pl.Series:
    """Whether each answer is right; null where that cannot be told.

    Args:
        verifier: ``exact_match`` (its final answer equals that of one of the right ones, as a number where both are
            numbers), or ``python:package.module:function``. The function gets lists of prompts, answers and
            lists of known right answers, and returns one true, false or None each. It is named in the recipe, so
            it runs with the recipe's trust.
        prompts, responses: n each.
        right: n lists of known right answers, empty where there is none.

    Raises:
        InputError: when there is no such function.
        ModelError: when it does not return n truth values.
    """
    if verifier == EXACT_MATCH:
        found = [_matches(answer, known) if known else None for answer, known in zip(responses, right, strict=True)]
        return pl.Series("success", found, dtype=pl.Boolean)
    function = named_function(
        verifier, what="verifier", expected=f"{EXACT_MATCH} or python:package.module:function"
    )
    given = list(function([list(p) for p in prompts], list(responses), [list(k) for k in right]))
    if len(given) != len(responses) or any(value not in (True, False, None) for value in given):
        raise ModelError(
            f"verifier {verifier!r} must return one true, false or None for each of {len(responses)} answers"
        )
    return pl.Series("success", [None if value is None else bool(value) for value in given], dtype=pl.Boolean)


def _matches(answer: str, known: Sequence[str]) -> bool:
    found = final_answer(answer)
    return bool(found) and any(_equal(found, final_answer(one)) for one in known)


def _equal(a: str, b: str) -> bool:
    left, right = _number(a), _number(b)
    if left is not None or right is not None:
        return left == right
    return _plain(a) == _plain(b) != ""


def _number(text: str) -> Fraction | None:
    """A text that is a number and perhaps a unit sign, as the number."""
    plain = re.sub(r"[\s,$€£%]|\\[,!]|\\%|\\\$", "", text).replace("−", "-").removesuffix(".")
    plain = re.sub(r"^\\d?frac\{(-?\d+)\}\{(\d+)\}$", r"\1/\2", plain)
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None


def _plain(text: str) -> str:
    return " ".join(normalise(text).casefold().strip(string.punctuation + string.whitespace).split())


def _trimmed(text: str) -> str:
    text = text.strip().strip("*").strip()
    text = text.removeprefix("$").removesuffix("$") if text.startswith("$") and text.endswith("$") else text
    number = re.match(rf"[$€£]?{_NUMBER.pattern}(?=[ \t]|[.,;]?$|%)", text)
    return number.group() if number and number.group().strip("$€£") else text.rstrip(".")


def _last_boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{…}``, with the braces inside it."""
    starts = [m.end() for m in _BOXED.finditer(text)]
    if not starts:
        return None
    depth = 1
    for place in range(starts[-1], len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[starts[-1] : place].strip()
    return None
