"""Where an answer can be made wrong by changing a number or a symbol, and how.

Which of the places is taken is the caller's; what numbers and sums are worth is in ``expressions``.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Final, NamedTuple

from curation.candidates.expressions import NUMBER, TOLD, differ, joined, near_to, parts, rounded, value_of

__all__ = [
    "Edit",
    "changed_operators",
    "changed_values",
    "dropped_terms",
    "substitutions",
    "swapped_operands",
    "swapped_steps",
]


class Edit(NamedTuple):
    """A replacement: ``text[start:end]`` becomes ``new``."""

    start: int
    end: int
    new: str


# Not part of a word, a date, a time, a version, a URL, an ordinal or another number.
_ALONE: Final = re.compile(rf"(?<![\w.,:/#@\\-])(?<!\d[-–])(?:{NUMBER})(?![\w@]|[.,:/-]\d|[-–]\d|\^)")
_THAN: Final = (
    r"(?:more|less|fewer|greater|larger|smaller|bigger|higher|lower|older|younger|longer|shorter)[ \t]+than"
)
_SKIPPED: Final = re.compile(
    r"\bhttps?://\S+|\bwww\.\S+|\S+@\S+\.\S+|^[ \t]*(?:[*#>-]+[ \t]*)*\(?\d+[.):][ \t]"
    r"|\b(?:step|part|section|chapter|figure|table|equation|page|option|case|example|question|exercise|problem)s?"
    r"[ \t]+\d+"
    # Another bound may be as true: "over 100", and both sides of "5 is less than 10".
    rf"|\b(?:{_THAN}|at[ \t]+(?:least|most)|up[ \t]+to|over|under|above|below|about|around|approximately|roughly"
    rf"|nearly|almost)[ \t]+[$€£]?\d[\d.,]*"
    rf"|(?<![\d.,])\d[\d.,]*+%?(?=(?:[ \t]+\w+)?[ \t]+(?:is|are|was|were)[ \t]+(?:much[ \t]+)?{_THAN})",
    re.IGNORECASE | re.MULTILINE,
)
_OPERAND: Final = rf"(?:[$€£]?(?:{NUMBER})|[a-zA-Z](?![a-zA-Z]))%?"
_TERMS: Final = re.compile(
    rf"(?<![\w.,$€£)\]^])(?:{_OPERAND})"
    rf"(?:[ \t]*[+−×*÷/·][ \t]*(?:{_OPERAND})|[ \t]+-[ \t]+(?:{_OPERAND}))+(?![\w^(\[]|\.\d)"
)
_COMPARISON: Final = re.compile(
    rf"(?<![\w.,^)])({_OPERAND})([ \t]*)(<=|>=|[<>≤≥])([ \t]*)({_OPERAND})(?![\w^(]|\.\d)"
)
_OTHER_OPERATOR: Final = {"+": "-−", "-": "+", "−": "+", "×": "÷+", "*": "/+", "÷": "×", "/": "*", "·": "+"}
_OPPOSITE: Final = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "<=": ">=", ">=": "<="}
_STEP: Final = re.compile(
    r"^([ \t]*(?:\*\*)?step[ \t]+\d+(?:\*\*)?[.:)](?:\*\*)?[ \t]*)(\S[^\n]*)$", re.MULTILINE | re.IGNORECASE
)
_NUMBERED: Final = re.compile(r"^([ \t]*\d+[.)][ \t]+)(\S[^\n]*)$", re.MULTILINE)
_DATE: Final = re.compile(r"\d{1,2}/\d{1,2}/\d{2,4}|\d{4}/\d{1,2}/\d{1,2}")
_NEXT: Final = re.compile(r"[ \t]*(\S)")
_EQUATED: Final = "=≈≠"
_AFTER_COMPARISON: Final = re.compile(r"[^\s>=-][ \t]*[<>≤≥]=?[ \t]*[-+−–]?[ \t]*$")
"""No arrow, and no mark of a quotation at the beginning of a line."""
_OPERATES: Final = "+-−–×*÷/·^"
_LEAST_NEAR: Final = Fraction(TOLD - 2, TOLD)
_MOST_NEAR: Final = Fraction(TOLD + 2, TOLD)
"""Bounds, as shares of a number, of all that could be told from it only by a smaller part."""
_NEAR: Final = 16
_RESULT: Final = re.compile(rf"=[ \t]*[$€£]?({NUMBER})%?[^\d=]*$")


def changed_values(text: str, draw: random.Random) -> Iterator[Edit]:
    """One number becomes another that could stand there: near it, with as many decimals, of the same sign."""
    around = _Around(text)
    for number in _numbers(text):
        edit = Edit(number.start(), number.end(), near_to(number.group(), draw))
        if around.matters(edit):
            yield edit


def substitutions(text: str, draw: random.Random) -> Iterator[Edit]:
    """One number becomes another number of the same answer."""
    found = _numbers(text)
    values = {value: m.group() for m in found if (value := value_of(m.group())) is not None}
    written = [(value, as_text) for value, as_text in sorted(values.items()) if value != 0]
    sizes = [value for value, _ in written]
    around = _Around(text)
    for number in found:
        value = value_of(number.group())
        assert value is not None
        # Only numbers near this one can be a rounding of it.
        near = range(bisect_left(sizes, value * _LEAST_NEAR), bisect_right(sizes, value * _MOST_NEAR))
        same = [place for place in near if rounded(number.group(), written[place][1])]
        if len(same) == len(written):
            continue
        place = draw.choice(range(len(written) - len(same)))
        for other in same:
            place += other <= place
        edit = Edit(number.start(), number.end(), written[place][1])
        if around.matters(edit):
            yield edit


def dropped_terms(text: str, draw: random.Random) -> Iterator[Edit]:
    """A sum or product loses an operand, and so its value."""
    for found in _terms(text):
        operands, operators = parts(found.group())
        for place in range(1, len(operands)):
            left_over = [*operands[:place], *operands[place + 1 :]], [*operators[: place - 1], *operators[place:]]
            if differ((operands, operators), left_over):
                yield Edit(found.start(), found.end(), joined(*left_over))


def changed_operators(text: str, draw: random.Random) -> Iterator[Edit]:
    """An operator becomes another one, or a comparison is turned round."""
    for found in _terms(text):
        operands, operators = parts(found.group())
        for place, spaced in enumerate(operators):
            sign = spaced.strip()
            # A hyphen is a minus only between spaces, so it is not written where there are none.
            options = [o for o in _OTHER_OPERATOR[sign] if o != "-" or spaced != sign]
            other = options[0] if len(options) == 1 else draw.choice(options)
            changed = [*operators[:place], spaced.replace(sign, other), *operators[place + 1 :]]
            if differ((operands, operators), (operands, changed)):
                yield Edit(found.start(), found.end(), joined(operands, changed))
    for found in _COMPARISON.finditer(text):
        if _is_uneven(found):
            yield Edit(found.start(3), found.end(3), _OPPOSITE[found.group(3)])


def swapped_operands(text: str, draw: random.Random) -> Iterator[Edit]:
    """The operands of a difference, a quotient or a comparison change places.

    Not where they are a part of something longer: 12x - 2 - 3 is 12x - 3 - 2, and -3 < 5 is as true as -5 < 3.
    """
    for found in _terms(text):
        if _goes_before(text, found.start()):
            continue
        operands, operators = parts(found.group())
        for place, sign in enumerate(operators):
            swapped = [*operands[:place], operands[place + 1], operands[place], *operands[place + 2 :]]
            zero = sign.strip() in "÷/" and value_of(operands[place]) == 0
            if not zero and differ((operands, operators), (swapped, operators)):
                yield Edit(found.start(), found.end(), joined(swapped, operators))
    for found in _COMPARISON.finditer(text):
        longer = _goes_before(text, found.start()) or _next(text, found.end()) in _OPERATES
        if not longer and _is_uneven(found):
            yield Edit(found.start(), found.end(), "".join(found.group(5, 2, 3, 4, 1)))


def swapped_steps(text: str, draw: random.Random) -> Iterator[Edit]:
    """Two steps in a row change places; their numbers stay.

    Only steps whose order matters: those that are called steps, or numbered lines of which the second
    uses the result of the first. The items of any other list may stand in any order.
    """
    for pattern, always in ((_STEP, True), (_NUMBERED, False)):
        for first, second in pairwise(pattern.finditer(text)):
            adjacent = not text[first.end() : second.start()].strip()
            result = _RESULT.search(first.group(2))
            used = result is not None and re.search(
                rf"(?<![\d.,]){re.escape(result.group(1))}(?![\d,]|\.\d)", second.group(2)
            )
            if adjacent and (always or used) and first.group(2).strip() != second.group(2).strip():
                between = text[first.end() : second.start(2)]
                yield Edit(first.start(2), second.end(2), second.group(2) + between + first.group(2))


def _is_uneven(comparison: re.Match[str]) -> bool:
    """Whether the two sides are worth something else; two letters may be."""
    left, right = comparison.group(1), comparison.group(5)
    return left != right and (value_of(left) is None or value_of(left) != value_of(right))


def _terms(text: str) -> Iterator[re.Match[str]]:
    """Sums and products; no dates, no sides of comparisons, no marks of a sentence ("5 - 10 minutes", "N/A")."""
    for found in _TERMS.finditer(text):
        operands, operators = parts(found.group())
        signs = {sign.strip() for sign in operators}
        letters = all(value_of(operand) is None for operand in operands)
        if signs == {"-"} or (signs == {"/"} and letters):
            near = _line_before(text, found.start()).rstrip()[-1:], _next(text, found.end())
            if not any(mark and mark in _EQUATED for mark in near):
                continue
        if not _DATE.fullmatch(found.group()) and not _is_compared(text, *found.span()):
            yield found


def _is_compared(text: str, start: int, end: int) -> bool:
    """Whether something is a side of a comparison: 9 - 3 > 1 is as true as 9 > 1."""
    before = _line_before(text, start)[-_NEAR:]
    return _next(text, end) in "<>≤≥" or _AFTER_COMPARISON.search(before) is not None


def _goes_before(text: str, start: int) -> bool:
    """Whether an operator or a sign stands before a place; a list's bullet and ``**`` are none."""
    line = _line_before(text, start)
    bare = line.rstrip(" \t")
    if bare[-1:] == "" or bare[-1] not in _OPERATES:
        return False
    bullet = len(bare.strip()) == 1 and bare != line
    bold = bare.endswith("**") and not re.search(r"\w[ \t]*\*\*$", bare)
    return not bullet and not bold


def _line_before(text: str, place: int) -> str:
    return text[text.rfind("\n", 0, place) + 1 : place]


def _next(text: str, place: int) -> str:
    """The next character of the line that is no space; a line feed where there is none."""
    found = _NEXT.match(text, place)
    return found.group(1) if found else "\n"


def _numbers(text: str) -> list[re.Match[str]]:
    """The numbers that say something: no list marks, step numbers, dates, addresses."""
    skipped = _Spans([m.span() for m in _SKIPPED.finditer(text)])
    found = (m for m in _ALONE.finditer(text) if value_of(m.group()) is not None)
    return [m for m in found if skipped.at(m.start()) is None]


class _Spans:
    """Stretches of a text that do not overlap, in order."""

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        self._spans = spans
        self._starts = [start for start, _ in spans]

    def at(self, place: int) -> tuple[int, int] | None:
        """The stretch that holds a place."""
        number = bisect_right(self._starts, place) - 1
        return self._spans[number] if number >= 0 and place < self._spans[number][1] else None


class _Around:
    """What stands around the numbers of a text; looked for once, for a text may hold thousands of them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._comparisons = _Spans([m.span() for m in _COMPARISON.finditer(text)])
        self._terms = _Spans([m.span() for m in _TERMS.finditer(text)])

    def matters(self, edit: Edit) -> bool:
        """Whether another number makes the answer wrong: 5 > 4 is as true as 5 > 3, and 0 × 4 is 0 × 3."""
        if self._comparisons.at(edit.start) is not None:
            return False
        terms = self._terms.at(edit.start)
        if _is_compared(self._text, *(terms or (edit.start, edit.end))):
            return False
        if terms is None:
            return True
        before, after = self._text[terms[0] : edit.start], self._text[edit.end : terms[1]]
        return differ(parts(self._text[slice(*terms)]), parts(before + edit.new + after))
