"""The expectation over grades of several digits, against every string that a small language model could write."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from curation.models.chat import TokenProbabilities
from curation.models.rewards.judge_grades import expected_grade


def token(written: str, **tops: float) -> TokenProbabilities:
    """``_0`` stands for the token 0; ``end`` for the closing brace."""
    named = {name.removeprefix("_").replace("end", "}"): p for name, p in tops.items()}
    return TokenProbabilities(written, tuple((text, math.log(p)) for text, p in named.items()))


OPEN, CLOSE = token('":', end=0.1), token("}", end=1.0)


def test_one_is_not_ten_where_numbers_are_written_digit_by_digit() -> None:
    reply = [OPEN, token("1", _1=0.6, _9=0.4), token("0", _0=0.9, end=0.1), CLOSE]
    assert expected_grade(reply, 10, low=1, high=10) == pytest.approx(10 * 0.54 + 1 * 0.06 + 9 * 0.4)
    one = [OPEN, token("1", _1=0.6, _2=0.4), token("}", _0=0.25, end=0.75)]
    assert expected_grade(one, 1, low=1, high=10) == pytest.approx(10 * 0.15 + 1 * 0.45 + 2 * 0.4)


def test_ten_as_one_token_is_told_from_one() -> None:
    reply = [OPEN, token("10", _10=0.5, _9=0.3, _1=0.2), CLOSE]
    assert expected_grade(reply, 10, low=1, high=10) == pytest.approx(10 * 0.5 + 9 * 0.3 + 1 * 0.2)
    other = [OPEN, token("9", _10=0.2, _9=0.7, _1=0.1), CLOSE]
    assert expected_grade(other, 9, low=1, high=10) == pytest.approx(10 * 0.2 + 9 * 0.7 + 1 * 0.1)


def test_a_first_digit_that_may_be_one_or_ten_is_no_ones_and_much_of_it_leaves_the_written_grade() -> None:
    unparted = [OPEN, token("8", _8=0.5, _9=0.3, _1=0.2), CLOSE]
    assert expected_grade(unparted, 8, low=1, high=10) is None
    hardly = [OPEN, token("8", _8=0.695, _9=0.3, _1=0.005), CLOSE]
    assert expected_grade(hardly, 8, low=1, high=10) == pytest.approx((8 * 0.695 + 9 * 0.3) / 0.995)
    # On a scale from 2 to 10 a first 1 is a 10, and nothing else.
    assert expected_grade(unparted, 8, low=2, high=10) == pytest.approx(8 * 0.5 + 9 * 0.3 + 10 * 0.2)


def test_a_reply_that_breaks_off_at_a_beginning_parts_nothing() -> None:
    assert expected_grade([OPEN, token("1", _1=1.0)], 1, low=1, high=10) is None
    assert expected_grade([OPEN, token("7", _7=1.0)], 7, low=1, high=10) == 7.0
    assert expected_grade([], 7, low=1, high=10) is None


def test_zero_begins_no_other_grade() -> None:
    reply = [OPEN, token("0", _0=0.5, _4=0.5), token("}", end=0.9, _4=0.1)]
    assert expected_grade(reply, 0, low=0, high=9) == pytest.approx(2.0)


def test_the_last_place_counts_where_the_grade_stands_twice() -> None:
    reply = [token("10", _10=1.0), token(" of", end=1.0), token("10", _10=0.5, _8=0.5), CLOSE]
    assert expected_grade(reply, 10, low=1, high=10) == pytest.approx(9.0)


@pytest.mark.parametrize(("low", "high"), [(1, 10), (0, 20), (5, 12), (0, 100), (95, 120)])
@pytest.mark.parametrize("seed", range(4))
def test_where_all_is_told_it_equals_the_expectation_over_whole_numbers(low: int, high: int, seed: int) -> None:
    """Digit by digit, with one first digit for sure, so that everything lies on the way that was written."""
    random = np.random.default_rng(seed)
    scale = [str(grade) for grade in range(low, min(high, 99) + 1)]
    written = scale[int(random.integers(len(scale)))]
    kin = [grade for grade in scale if grade[0] == written[0]]
    chances = dict(zip(kin, random.dirichlet(np.ones(len(kin))), strict=True))
    reply = [OPEN, *_told(chances, written), CLOSE]
    expected = sum(int(grade) * p for grade, p in chances.items())
    assert expected_grade(reply, int(written), low=low, high=high) == pytest.approx(expected)


def _told(chances: Mapping[str, float], written: str) -> list[TokenProbabilities]:
    """What a server tells of a number whose grades have these chances: one token a digit, or the end."""
    found = [TokenProbabilities(written[0], ((written[0], 0.0),))]
    tops = {(grade[1:] or "}"): p for grade, p in chances.items() if p > 0}
    logs = tuple((text, math.log(p)) for text, p in tops.items())
    return [*found, TokenProbabilities(written[1:] or "}", logs)]
