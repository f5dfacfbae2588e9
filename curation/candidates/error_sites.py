"""Where an answer can be made wrong by changing a number or a symbol, and how.

Which of the places is taken is the caller's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Final, NamedTuple

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


_NUMBER: Final = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
# Not part of a word, a date, a time, a version, a URL, an ordinal or another number.
_ALONE: Final = re.compile(rf"(?<![\w.,:/#@\\-])(?<!\d[-–])(?:{_NUMBER})(?![\w@]|[.,:/-]\d|[-–]\d|\^)")
_SKIPPED: Final = re.compile(
    r"\bhttps?://\S+|\bwww\.\S+|\S+@\S+\.\S+|^[ \t]*(?:[*#>-]+[ \t]*)*\(?\d+[.):][ \t]"
    r"|\b(?:step|part|section|chapter|figure|table|equation|page|option|case|example|question|exercise|problem)s?"
    r"[ \t]+\d+",
    re.IGNORECASE | re.MULTILINE,
)
_OPERAND: Final = rf"(?:[$€£]?(?:{_NUMBER})|[a-zA-Z](?![a-zA-Z]))%?"
_TERMS: Final = re.compile(
    rf"(?<![\w.,$€£)\]^])(?:{_OPERAND})"
    rf"(?:[ \t]*[+−×*÷/·][ \t]*(?:{_OPERAND})|[ \t]+-[ \t]+(?:{_OPERAND}))+(?![\w^(\[]|\.\d)"
)
_OPERATOR: Final = re.compile(r"[ \t]*([+−×*÷/·]|(?<=[ \t])-(?=[ \t]))[ \t]*")
_COMPARISON: Final = re.compile(
    rf"(?<![\w.,^)])({_OPERAND})([ \t]*)(<=|>=|[<>≤≥])([ \t]*)({_OPERAND})(?![\w^(]|\.\d)"
)
_OTHER_OPERATOR: Final = {"+": "-−", "-": "+", "−": "+", "×": "÷+", "*": "/+", "÷": "×", "/": "*", "·": "+"}
_OPPOSITE: Final = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "<=": ">=", ">=": "<="}
_STEP: Final = re.compile(
    r"^([ \t]*(?:\*\*)?step[ \t]+\d+(?:\*\*)?[.:)](?:\*\*)?[ \t]*)(\S[^\n]*)$", re.MULTILINE | re.IGNORECASE
)
_NUMBERED: Final = re.compile(r"^([ \t]*\d+[.)][ \t]+)(\S[^\n]*)$", re.MULTILINE)
_RESULT: Final = re.compile(rf"=[ \t]*[$€£]?({_NUMBER})%?[^\d=]*$")


def changed_values(text: str, draw: random.Random) -> Iterator[Edit]:
    """One number becomes another that could stand there: near it, with as many decimals, of the same sign."""
    for number in _numbers(text):
        edit = Edit(number.start(), number.end(), _near(number.group(), draw))
        if _matters(text, edit):
            yield edit


def substitutions(text: str, draw: random.Random) -> Iterator[Edit]:
    """One number becomes another number of the same answer."""
    found = _numbers(text)
    values = {_value(m.group()): m.group() for m in found}
    for number in found:
        others = [t for v, t in sorted(values.items()) if v not in (_value(number.group()), 0)]
        edit = Edit(number.start(), number.end(), draw.choice(others)) if others else None
        if edit and _matters(text, edit):
            yield edit


def dropped_terms(text: str, draw: random.Random) -> Iterator[Edit]:
    """A sum or product loses an operand, and so its value."""
    for found in _TERMS.finditer(text):
        operands, operators = _parts(found.group())
        for place in range(1, len(operands)):
            left_over = [*operands[:place], *operands[place + 1 :]], [*operators[: place - 1], *operators[place:]]
            if _differ((operands, operators), left_over):
                yield Edit(found.start(), found.end(), _joined(*left_over))


def changed_operators(text: str, draw: random.Random) -> Iterator[Edit]:
    """An operator becomes another one, or a comparison is turned round."""
    for found in _TERMS.finditer(text):
        operands, operators = _parts(found.group())
        for place, spaced in enumerate(operators):
            sign = spaced.strip()
            # A hyphen is a minus only between spaces, so it is not written where there are none.
            options = [o for o in _OTHER_OPERATOR[sign] if o != "-" or spaced != sign]
            other = options[0] if len(options) == 1 else draw.choice(options)
            changed = [*operators[:place], spaced.replace(sign, other), *operators[place + 1 :]]
            if _differ((operands, operators), (operands, changed)):
                yield Edit(found.start(), found.end(), _joined(operands, changed))
    for found in _COMPARISON.finditer(text):
        if found.group(1) != found.group(5):
            yield Edit(found.start(3), found.end(3), _OPPOSITE[found.group(3)])


def swapped_operands(text: str, draw: random.Random) -> Iterator[Edit]:
    """The operands of a difference, a quotient or a comparison change places."""
    for found in _TERMS.finditer(text):
        operands, operators = _parts(found.group())
        for place, sign in enumerate(operators):
            swapped = [*operands[:place], operands[place + 1], operands[place], *operands[place + 2 :]]
            zero = sign.strip() in "÷/" and _value(operands[place]) == 0
            if not zero and _differ((operands, operators), (swapped, operators)):
                yield Edit(found.start(), found.end(), _joined(swapped, operators))
    for found in _COMPARISON.finditer(text):
        left, right = found.group(1), found.group(5)
        if (left != right and _value(left) != _value(right)) or (left != right and _value(left) is None):
            yield Edit(found.start(), found.end(), f"{right}{''.join(found.group(2, 3, 4))}{left}")


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


def _numbers(text: str) -> list[re.Match[str]]:
    """The numbers that say something: no list marks, step numbers, dates, addresses."""
    skipped = [m.span() for m in _SKIPPED.finditer(text)]
    return [m for m in _ALONE.finditer(text) if not any(a <= m.start() < b for a, b in skipped)]


def _matters(text: str, edit: Edit) -> bool:
    """Whether another number makes the answer wrong: 5 > 4 is as true as 5 > 3, and 0 × 4 is 0 × 3."""
    if any(m.start() <= edit.start < m.end() for m in _COMPARISON.finditer(text)):
        return False
    around = next((m for m in _TERMS.finditer(text) if m.start() <= edit.start < m.end()), None)
    if around is None:
        return True
    start, end = edit.start - around.start(), edit.end - around.start()
    expression = around.group()
    return _differ(_parts(expression), _parts(expression[:start] + edit.new + expression[end:]))


def _near(number: str, draw: random.Random) -> str:
    """Another positive number close to this one, written in the same way."""
    plain = number.replace(",", "")
    decimals = len(plain.partition(".")[2])
    units = int(plain.replace(".", ""))
    reach = max(2, units // 10)
    options = [units + d for d in (*range(1, 3), reach) if d] + [units - d for d in (1, 2, reach) if units - d > 0]
    digits = str(units)
    options += [
        int(digits[:i] + b + a + digits[i + 2 :]) for i, (a, b) in enumerate(pairwise(digits)) if i or b != "0"
    ]
    changed = draw.choice(sorted({n for n in options if n not in (units, 0)}))
    whole, fraction = divmod(changed, 10**decimals)
    written = f"{whole:,}" if "," in number else str(whole)
    return f"{written}.{fraction:0{decimals}d}" if decimals else written


def _parts(expression: str) -> tuple[list[str], list[str]]:
    """Operands, and the operators between them with their spaces."""
    operators = [m.group() for m in _OPERATOR.finditer(expression)]
    pieces = _OPERATOR.split(expression)
    return pieces[::2], operators


def _joined(operands: list[str], operators: list[str]) -> str:
    return operands[0] + "".join(sign + operand for sign, operand in zip(operators, operands[1:], strict=True))


def _value(operand: str) -> Fraction | None:
    """What a number is worth; None for a letter."""
    plain = operand.strip("$€£%").replace(",", "")
    return Fraction(plain) if plain[:1].isdigit() else None


def _differ(before: tuple[list[str], list[str]], after: tuple[list[str], list[str]]) -> bool:
    """Whether an edit changes what the expression is worth.

    With letters in it, it is worth something else for nearly every value of them exactly when it is for a few
    drawn ones.
    """
    for trial in range(3):
        values = [_evaluated(operands, operators, trial) for operands, operators in (before, after)]
        if None in values or values[0] == values[1]:
            return False
    return True


def _evaluated(operands: list[str], operators: list[str], trial: int) -> Fraction | None:
    """Products and quotients first, then sums; None where it divides by zero."""
    numbers = []
    for operand in operands:
        value = _value(operand)
        numbers.append(Fraction(97 + 31 * trial + ord(operand[0]) ** 2, 7 + trial) if value is None else value)
    total, product, sign = Fraction(0), numbers[0], 1
    for spaced, number in zip(operators, numbers[1:], strict=True):
        match spaced.strip():
            case "×" | "*" | "·":
                product *= number
            case "÷" | "/":
                if number == 0:
                    return None
                product /= number
            case mark:
                total, product, sign = total + sign * product, number, 1 if mark == "+" else -1
    return total + sign * product
