"""How probable each grade is, from the probabilities of the tokens that a judge wrote. No model is called here.

A tokenizer writes 10 as one token, or as 1 and 0. In the second case the probability of the token 1 is that of the
grades 1 and 10 together, and only what the judge wrote further on parts them: the tokens after another first digit
were never asked for. What cannot be parted is counted, and is no grade's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from curation.models.chat import TokenProbabilities
from curation.models.rewards.judge_parsing import expected_score

__all__ = ["expected_grade"]

_MOST_UNPARTED: Final = 0.01
"""Ours: left out of the mean, it moves a grade by at most a hundredth of the scale."""
_DIGITS: Final = frozenset("0123456789")
"""str.isdigit would let ² and ① in, which are no numbers to int."""
_LONGEST_TOKEN: Final = 3
"""Tokenizers that write numbers in one token do so up to three digits."""


def expected_grade(tokens: Sequence[TokenProbabilities], written: int, *, low: int, high: int) -> float | None:
    """The expectation over the scale; None where probabilities are missing, or more than a hundredth is unparted.

    Args:
        tokens: of the reply.
        written: the grade that the reply says.
    """
    place = _place(tokens, str(written))
    if place is None:
        return None
    found = _Grades(low, high)
    found.walk(tokens[place.start : place.stop + 1], place.stop - place.start)
    total = sum(found.probabilities.values())
    if found.unparted > _MOST_UNPARTED * (total + found.unparted):
        return None
    return expected_score(found.probabilities, low=low, high=high)


@dataclass
class _Grades:
    low: int
    high: int
    probabilities: dict[int, float] = field(default_factory=dict)
    unparted: float = 0.0

    def walk(self, tokens: Sequence[TokenProbabilities], digits: int) -> None:
        """Follow the number as it was written: ``digits`` tokens, then the one after it, if there is one."""
        whole = any(len(text) > 1 for text in _numbers(tokens[0]))
        prefix, mass = "", 1.0
        for token in tokens[:digits]:
            own = _bare(token.token)
            found = _numbers(token)
            for text, p in found.items():
                if text != own:
                    self._add(prefix + text, mass * p, whole=whole)
            if prefix:
                self._ended(prefix, mass, found)
            prefix, mass = prefix + own, mass * found.get(own, 0.0)
        if not self._goes_on(prefix):
            self._grade(int(prefix), mass)
        elif len(tokens) == digits:
            self._add(prefix, mass, whole=whole)
        else:
            after = _numbers(tokens[digits])
            for text, p in after.items():
                self._add(prefix + text, mass * p, whole=whole)
            self._ended(prefix, mass, after)

    def _ended(self, prefix: str, mass: float, after: Mapping[str, float]) -> None:
        """The number may have ended with ``prefix``: whatever stands there, it is no digit."""
        self._grade(int(prefix), mass * max(1.0 - sum(after.values()), 0.0))

    def _add(self, number: str, p: float, *, whole: bool) -> None:
        grades = [grade for grade in range(self.low, self.high + 1) if str(grade).startswith(number)]
        if whole and len(number) < _LONGEST_TOKEN:
            self._grade(int(number), p)
        elif len(grades) == 1:
            self._grade(grades[0], p)
        elif grades:
            self.unparted += p

    def _goes_on(self, number: str) -> bool:
        """Whether a longer grade begins with these digits."""
        return any(str(grade).startswith(number) for grade in range(max(int(number) * 10, 1), self.high + 1))

    def _grade(self, grade: int, p: float) -> None:
        if self.low <= grade <= self.high:
            self.probabilities[grade] = self.probabilities.get(grade, 0.0) + p


def _place(tokens: Sequence[TokenProbabilities], number: str) -> range | None:
    """Where the tokens stand that wrote the number; of several places the last."""
    found, start = None, 0
    for at in range(len(tokens) + 1):
        if at < len(tokens) and _is_number(_bare(tokens[at].token)):
            continue
        if "".join(_bare(token.token) for token in tokens[start:at]) == number:
            found = range(start, at)
        start = at + 1
    return found


def _numbers(token: TokenProbabilities) -> dict[str, float]:
    """The alternatives that are digits alone, and their probabilities."""
    found: dict[str, float] = {}
    for text, logp in token.alternatives:
        bare = _bare(text)
        if _is_number(bare):
            found[bare] = found.get(bare, 0.0) + math.exp(logp)
    return found


def _bare(text: str) -> str:
    return text.strip(' "')


def _is_number(text: str) -> bool:
    return bool(text) and _DIGITS.issuperset(text)
