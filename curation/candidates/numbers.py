"""Numbers as answers write them: signs, thousands, fractions, percent, LaTeX. Answers are in ``verifiers``."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

__all__ = ["as_number", "leading_number", "numbers_in"]

_LONGEST: Final = 1000
"""Characters of a number; Python itself reads no more than 4300 digits."""
_SPACE: Final = "[\u00a0\u2009\u202f]"
_GROUPED: Final = rf"\d{{1,3}}(?:,\d{{3}})+|\d{{1,2}}(?:,\d{{2}})+,\d{{3}}|\d{{1,3}}(?:{_SPACE}\d{{3}})+"
_LATEX_GROUPED: Final = r"\d{1,3}(?:(?:\{,\}|\\[,!]|,\\!)\d{3})+"
_FRACTION: Final = r"(?:[ \t]*/[ \t]*\d+)?"
_PLAIN: Final = rf"(?:(?:{_GROUPED}|\d+)(?:\.\d+)?|\.\d+)"
_EXPONENT: Final = r"(?:[eE][-+]?\d{1,3})?"
_LEADING: Final = re.compile(
    rf"[$€£]?[-−–+]?[$€£]?(?:\d+[ \t]+\d+/\d+|\d{{1,3}}(?: \d{{3}})+(?:\.\d+)?|{_LATEX_GROUPED}(?:\.\d+)?"
    rf"|\d+,(?:\d{{1,2}}|\d{{4,}})(?![\d,])|{_PLAIN}{_EXPONENT}{_FRACTION})(?:[ \t]*\\?%)?"
    # Not the beginning of an expression, a list, a range, a date, or of a number with a letter in it.
    r"(?![ \t]*(?:[+*×·÷/^=<>≤≥±~]|[-−–][ \t]*(?:[\d(\\$.]|[a-zA-Z]\b))"
    r"|[ \t]*\\(?:pm|mp|times|cdot|div|sqrt|pi|[dtc]?frac|le|ge|log|ln|sin|cos|tan)\b"
    r"|[ \t]*,?[ \t]*(?:or|and|to)[ \t]+[$€£]?[-−–]?[\d.]|[.,:]\d|,[ \t]*[-−–]?\d|[ \t]*\s\d|[\dA-Za-zͰ-Ͽ¹²³⁰⁴-⁹(])"
)
_ANYWHERE: Final = re.compile(rf"(?<![A-Za-z_\d])(?<!\d\.)(?:(?<![\w)])[-−+])?{_PLAIN}{_FRACTION}")
_MARKS: Final = re.compile(r"\\[$%]|[$€£%]|\\left\b|\\right\b|\\[()\[\]]")
_UNIT: Final = re.compile(
    r"(?<=[\d}])\s*(?:\\(?:text|mathrm|textrm|textbf|mbox)\s*\{[^{}]*\}(?:\^\{?\d\}?)?|\^\s*\{?\s*\\circ\s*\}?"
    r"|\\degree|°)$"
)
_VALUE: Final = re.compile(rf"([-+]?)({_PLAIN}{_EXPONENT})(?:\s*/\s*(\d+))?")
_MIXED: Final = re.compile(
    r"([-+]?)(\d+)(?:\s+(\d+)\s*/\s*(\d+)|\s*\\[dtc]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\})"
)
_LATEX_FRACTION: Final = re.compile(
    r"([-+]?)\\[dtc]?frac\s*(?:\{\s*([-+]?\d+)\s*\}|(\d))\s*(?:\{\s*([-+]?\d+)\s*\}|(\d))"
)


def leading_number(text: str) -> str | None:
    """The number that a text begins with, with its sign, currency and percent sign; None where it begins with
    something else, or goes on as an expression ("2 + 3x"), a list or a range."""
    found = _LEADING.match(text)
    return found.group() if found else None


def numbers_in(text: str) -> list[str]:
    """Every number of a text, in order; a hyphen between two of them is no sign."""
    return [m.group() for m in _ANYWHERE.finditer(text)]


def as_number(text: str, *, decimal_comma: bool = False) -> Fraction | None:
    """A text that is a number and perhaps a unit sign, as the number; None for any other text.

    ``1,200``, ``1 200`` and ``1{,}200`` are 1200; ``3 1/2`` is 7/2; ``50%`` is 50. ``3,5`` is a number only with
    ``decimal_comma``, for it may be a list as well.
    """
    if len(text) > _LONGEST:
        return None
    plain = _MARKS.sub("", text.replace("−", "-").replace("–", "-")).strip().removesuffix(".")
    plain = _UNIT.sub("", plain)
    plain = re.sub(r"\{,\}|,\\!|\\[,!](?=\d{3})", ",", plain)
    plain = re.sub(r"(?<=\d) (?=\d{3}(?!\d))(?!\d+\s*/)", "\u00a0", re.sub(r"\\[,;:! ]", " ", plain)).strip()
    plain = plain[1:-1].strip() if plain.startswith("(") and plain.endswith(")") else plain
    plain = re.sub(r"^([-+])\s+", r"\1", plain)
    if decimal_comma and re.fullmatch(r"[-+]?\d+,(?:\d{1,2}|\d{4,})", plain):
        plain = plain.replace(",", ".")
    mixed = _mixed(plain)
    return _value(plain) if mixed is None else mixed


def _mixed(plain: str) -> Fraction | None:
    """``3 1/2``, ``3\\frac{1}{2}`` and ``\\frac{7}{2}``."""
    if found := _MIXED.fullmatch(plain):
        top, bottom = int(found[3] or found[5]), int(found[4] or found[6])
        value = Fraction(int(found[2]) * bottom + top, bottom) if bottom else None
    elif found := _LATEX_FRACTION.fullmatch(plain):
        top, bottom = int(found[2] or found[3]), int(found[4] or found[5])
        value = Fraction(top, bottom) if bottom else None
    else:
        return None
    return -value if value is not None and found[1] == "-" else value


def _value(plain: str) -> Fraction | None:
    found = _VALUE.fullmatch(plain)
    if found is None:
        return None
    try:
        value = Fraction(re.sub(rf"[,]|{_SPACE}", "", found[2])) / int(found[3] or 1)
    except (ValueError, ZeroDivisionError):
        return None
    return -value if found[1] == "-" else value
