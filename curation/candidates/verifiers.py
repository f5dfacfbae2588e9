"""Whether an answer is right: equal to a known right one, or what a function of the user's says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import polars as pl

from curation.candidates.numbers import as_number, leading_number, numbers_in
from curation.errors import ModelError
from curation.functions import named_function
from curation.text import Message, normalise

__all__ = ["EXACT_MATCH", "answer_key", "final_answer", "verify"]

EXACT_MATCH: Final = "exact_match"
_BOXED: Final = re.compile(r"\\boxed\s*\{")
_HASHES: Final = re.compile(r"####[ \t]*(\S[^\n]*)")
_SAID: Final = re.compile(
    r"\b(?:final answer|the answer|answer)(?:\*\*)?(?:[ \t]+is\b(?:[ \t]*:)?|[ \t]*[:=])[ \t]*(?:\*\*)?[ \t]*"
    r"(\S[^\n]*)",
    re.IGNORECASE,
)
_SAYS_NOTHING: Final = re.compile(r"not\b|(?:in)?correct\b|as follows", re.IGNORECASE)
_NUMBERED: Final = re.compile(r"\d+[.)][ \t]+\S")
_EMPHASIS: Final = re.compile(r"(?<!\w)\*\*|\*\*(?!\w)|(?<![\w \t)])\*|\*(?![\w \t(])|`")
_MATHS: Final = re.compile(r"\\[()\[\]]|\\left\b|\\right\b")
_RESULT: Final = re.compile(r"[^=<>≤≥≠!]*=[ \t]*([^=<>≤≥≠]+)")
_OPTION: Final = re.compile(r"\(?([A-Za-z])(?:\)?\.?$|[).:](?=\s))")
_WRAPPED: Final = re.compile(r"\((\w[^(),]*)\)|\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}")
_SHORT: Final = 60


def final_answer(text: str) -> str:
    """What an answer comes to: ``\\boxed{…}``, or the last of ``#### …`` and "the answer is …"; else a short text
    itself; else its last number. Empty where there is none of these.

    A heading is no answer: ``#### …`` counts at the end of the text, or with a number.
    """
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    end = len(text.rstrip())
    found = [m for m in _SAID.finditer(text) if not _SAYS_NOTHING.match(m.group(1))]
    found += [m for m in _HASHES.finditer(text) if m.end() >= end or _is_number(m.group(1))]
    if found:
        return _trimmed(max(found, key=lambda m: m.start(1)).group(1))
    text = text.strip()
    if len(text) <= _SHORT and "\n" not in text:
        # "1. Milk" is no 1.
        return text.rstrip(".") if _NUMBERED.match(text) else _trimmed(text)
    numbers = numbers_in(text)
    return numbers[-1] if numbers else ""


def answer_key(text: str) -> str:
    """What is the same for answers that come to the same: of ``exact_match``, as text. Empty where that cannot
    be read."""
    found = final_answer(text)
    number = as_number(found) if found else None
    return _plain(found) if number is None else str(number)


def verify(
    verifier: str, prompts: Sequence[Sequence[Message]], responses: Sequence[str], right: Sequence[Sequence[str]]
) -> pl.Series:
    """Whether each answer is right; null where that cannot be told.

    Args:
        verifier: ``exact_match`` (its final answer equals that of one of the right ones, as a number where both are
            numbers; null where it holds a right one among other words, as "It is 4." does), or
            ``python:package.module:function``. The function gets lists of prompts, answers and
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


def _matches(answer: str, known: Sequence[str]) -> bool | None:
    found, golds = final_answer(answer), [final_answer(one) for one in known]
    if not found:
        return False
    if any(_equal(found, gold) for gold in golds):
        return True
    return None if any(_holds(found, gold) for gold in golds) else False


def _equal(a: str, b: str) -> bool:
    left, right = as_number(a), as_number(b)
    if left is None and right is None:
        one, other_one = _option(a), _option(b)
        if one and other_one and min(len(a), len(b)) <= len("(B)."):
            return one == other_one
        return _plain(a) == _plain(b) != ""
    if left is None or right is None:
        # Where a comma stands for the point, "3,5" is a number only beside one.
        left, right = (as_number(text, decimal_comma=True) for text in (a, b))
        return left is not None and left == right
    if ("%" in a) != ("%" in b):
        share, other = (left, right) if "%" in a else (right, left)
        return share in (other, other * 100)
    return left == right


def _option(text: str) -> str | None:
    """The letter of a multiple choice: ``B``, ``(B)``, ``B. Paris``."""
    found = _OPTION.match(text)
    return found[1].casefold() if found else None


def _holds(found: str, gold: str) -> bool:
    """Whether a final answer that is no number has the right one among more words."""
    number = as_number(gold)
    if as_number(found) is not None:
        return False
    if number is not None:
        return any(as_number(one) == number for one in numbers_in(found))
    known, said = _words(gold), _words(found)
    return 0 < len(known) < len(said) and f" {' '.join(known)} " in f" {' '.join(said)} "


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", normalise(text).casefold())


def _plain(text: str) -> str:
    """A text without what says nothing: case, quotes, full stops, spaces at commas. Signs and brackets stay."""
    text = _MATHS.sub("", normalise(text)).strip("\"'“”‘’*`$ \t\n")
    text = re.sub(r"(?<=[^\W\d]{2})!+$", "", text.rstrip(".,;:?")).rstrip("\"'“”‘’*`$. ")
    wrapped = _WRAPPED.fullmatch(text)
    text = (wrapped[1] or wrapped[2] or "") if wrapped else text
    return " ".join(re.sub(r"\s*,\s*", ",", text).casefold().split())


def _trimmed(text: str) -> str:
    text = _EMPHASIS.sub("", _MATHS.sub("", text)).strip()
    text = text[1:-1].strip() if len(text) > 1 and text.startswith("$") and text.endswith("$") else text
    result = _RESULT.fullmatch(text)
    number = leading_number(result.group(1) if result else text) or leading_number(text)
    return number if number else text.rstrip(".")


def _is_number(text: str) -> bool:
    return not _NUMBERED.match(text) and as_number(_trimmed(text)) is not None


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
