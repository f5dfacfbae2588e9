"""What numbers, sums and products in an answer are worth, and which numbers are near one.

Where they stand in it is in ``error_sites``; numbers in every form that answers give them, in ``numbers``.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction
from itertools import pairwise
from typing import Final

__all__ = ["NUMBER", "TOLD", "differ", "joined", "near_to", "parts", "rounded", "value_of"]

NUMBER: Final = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
TOLD: Final = 100
"""An error in a number with decimals or many digits is one of at least one part in so many."""
_LONGEST: Final = 1000
_SEVERAL: Final = 100
_MANY: Final = 10_000
_OPERATOR: Final = re.compile(r"[ \t]*([+−×*÷/·]|(?<=[ \t])-(?=[ \t]))[ \t]*")


def near_to(number: str, draw: random.Random) -> str:
    """Another positive number close to this one, written in the same way."""
    plain = number.replace(",", "")
    decimals = len(plain.partition(".")[2])
    units = int(plain.replace(".", ""))
    # Of a number with many digits, the last ones may be a rounding.
    many = units >= (_MANY if decimals == 0 else _SEVERAL)
    reach = max(2, units // 10)
    steps = (1, 2, reach)
    options = [units + step for step in steps] + [units - step for step in steps if units > step]
    digits = str(units)
    options += [
        int(digits[:i] + b + a + digits[i + 2 :]) for i, (a, b) in enumerate(pairwise(digits)) if i or b != "0"
    ]
    told = {n for n in options if n not in (units, 0) and not (many and abs(n - units) * TOLD < units)}
    changed = draw.choice(sorted(told))
    whole, fraction = divmod(changed, 10**decimals)
    written = f"{whole:,}" if "," in number else str(whole)
    return f"{written}.{fraction:0{decimals}d}" if decimals else written


def rounded(a: str, b: str) -> bool:
    """Whether two numbers are equal, or one can be a rounding of the other."""
    left, right = value_of(a), value_of(b)
    assert left is not None
    assert right is not None
    return left == right or ("." in a + b and abs(left - right) * TOLD < max(left, right))


def parts(expression: str) -> tuple[list[str], list[str]]:
    """Operands, and the operators between them with their spaces."""
    operators = [m.group() for m in _OPERATOR.finditer(expression)]
    pieces = _OPERATOR.split(expression)
    return pieces[::2], operators


def joined(operands: list[str], operators: list[str]) -> str:
    return operands[0] + "".join(sign + operand for sign, operand in zip(operators, operands[1:], strict=True))


def value_of(operand: str) -> Fraction | None:
    """What a number is worth; None for a letter, and for more digits than Python reads."""
    plain = operand.strip("$€£%").replace(",", "")
    return Fraction(plain) if plain[:1].isdigit() and len(plain) <= _LONGEST else None


def differ(before: tuple[list[str], list[str]], after: tuple[list[str], list[str]]) -> bool:
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
        value = value_of(operand)
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
