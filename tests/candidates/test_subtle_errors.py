"""Each rule makes exactly one thing wrong, and nothing that stays true is taken for an error."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.candidates import error_sites
from curation.candidates.subtle_errors import ERROR_KINDS, inject_error, subtle_errors
from curation.errors import InputError
from curation.text import normalise

SOLUTION = """Step 1: Add the red and the green ones: 12 + 30 = 42 apples.
Step 2: Then 42 - 7 = 35 are left, and each child gets 35 / 5 = 7."""


def versions(text: str, kind: str, seeds: int = 40) -> set[str | None]:
    return {inject_error(text, kind, seed=seed) for seed in range(seeds)}


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_every_kind_finds_a_place_in_a_solution(kind: str) -> None:
    found = versions(SOLUTION, kind)
    assert None not in found
    assert SOLUTION not in found
    assert {inject_error(SOLUTION, kind, seed=3) for _ in range(3)} == {inject_error(SOLUTION, kind, seed=3)}


def test_a_value_changes_and_keeps_its_form() -> None:
    assert all(
        re.fullmatch(r"It cost \$\d,\d{3}\.\d\d\.", v or "") for v in versions("It cost $1,250.50.", "value")
    )
    assert all(re.fullmatch(r"The answer is [1-9]\d*\.", v or "") for v in versions("The answer is 10.", "value"))


def test_a_value_is_never_negative_or_zero() -> None:
    assert versions("There is 1 left", "value") <= {"There is 2 left", "There is 3 left"}


def test_a_substitution_takes_another_number_of_the_answer() -> None:
    assert versions("Of 8 cats 5 sleep", "substitution") == {"Of 5 cats 5 sleep", "Of 8 cats 8 sleep"}


def test_dropped_terms() -> None:
    assert versions("3 + 4 - 2 = 5", "dropped_term") == {"3 - 2 = 5", "3 + 4 = 5"}


def test_operators() -> None:
    assert versions("so 6 × 3 here", "operator") == {"so 6 ÷ 3 here", "so 6 + 3 here"}
    assert versions("if x <= y then", "operator") == {"if x >= y then"}


def test_swaps() -> None:
    assert versions("9 - 4 = 5", "swapped_operands") == {"4 - 9 = 5"}
    assert versions("a < b", "swapped_operands") == {"b < a"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2 × 2 = 4", "swapped_operands"),
        ("9 + 4 = 13", "swapped_operands"),
        ("x * y", "swapped_operands"),
        ("5 + 0", "dropped_term"),
        ("7 × 1", "dropped_term"),
        ("7 / 1", "operator"),
        ("x - 0", "operator"),
        ("2 + 2", "swapped_operands"),
        ("0 / 4", "swapped_operands"),
    ],
)
def test_an_edit_that_stays_true_is_not_made(text: str, kind: str) -> None:
    assert versions(text, kind) == {None}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        # A part of something longer, which stays worth the same.
        ("The sum is -5 - 3 = -8", "swapped_operands"),
        ("12x - 2 - 3 = 7", "swapped_operands"),
        ("x² / 2 / 3 = y", "swapped_operands"),
        ("-3 < 5", "swapped_operands"),
        # Sides of comparisons: x - 5 > 3 says what x - 3 > 5 says, and 9 > 1 is as true as 9 - 3 > 1.
        ("x - 3 > 5", "swapped_operands"),
        *(("9 + 3 > -1 × 2", kind) for kind in ("value", "dropped_term", "swapped_operands")),
        ("5 ≥ 5.0", "operator"),
        # Dates, ranges, dashes, slashes.
        *((text, kind) for text in ("on 12/25/2023 there", "It takes 5 - 10 minutes", "Vitamin C - a food", "N/A")
          for kind in ("swapped_operands", "dropped_term", "operator")),
        # Another bound.
        ("5 > 2 + 1", "value"),
        ("5 is less than 10", "value"),
        ("It has at least 3 of them", "value"),
        ("over $1,000 in all", "value"),
        # A rounding.
        ("π is 3.14159, or 3.14", "substitution"),
    ],
)  # fmt: skip
def test_what_would_stay_true_is_left(text: str, kind: str) -> None:
    assert versions(text, kind) == {None}


def test_arrows_and_quotations_are_no_comparisons() -> None:
    for mark in ("=> ", "-> ", "> ", "therefore => "):
        assert versions(f"{mark}9 / 3 = 3", "swapped_operands") == {f"{mark}3 / 9 = 3"}


def test_bullets_and_bold_type_are_no_signs() -> None:
    assert versions("- 9 - 4 = 5", "swapped_operands") == {"- 4 - 9 = 5"}
    assert versions("**9 / 3 = 3**", "swapped_operands") == {"**3 / 9 = 3**"}


def test_an_error_in_many_digits_is_no_rounding() -> None:
    for text in ("3.14159265", "33.33", "8,336,817"):
        for made in versions(text, "value"):
            change = abs(float((made or "").replace(",", "")) / float(text.replace(",", "")) - 1)
            assert change >= 0.01


@pytest.mark.parametrize("kind", ["value", "substitution"])
def test_a_comparison_may_stay_true_so_its_numbers_are_left(kind: str) -> None:
    assert versions("5 > 3", kind) == {None}


@pytest.mark.parametrize(
    "text",
    [
        "On 2024-01-05 at 10:30",
        "version 1.2.3 of it",
        "see https://example.org/7/8?x=9",
        "H2O and B12 and x2",
        "the 1st and the 22nd",
        "1. Milk\n2. Eggs",
        "as Step 3 and Figure 4 say",
        "no number at all",
        "",
        "mail me at a7@b8.org",
    ],
)
def test_numbers_that_say_nothing_are_left(text: str) -> None:
    assert versions(text, "value") == {None}


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_more_digits_than_python_reads_are_left(kind: str) -> None:
    assert versions("9" * 5000 + " apples", kind, seeds=1) == {None}


def test_items_of_a_list_without_order_are_not_swapped() -> None:
    assert versions("Three fruits:\n1. Apples\n2. Pears\n3. Plums", "swapped_steps") == {None}


def test_numbered_lines_are_swapped_where_the_second_needs_the_first() -> None:
    text = "1. The total is 5 × 4 = 20\n2. Then 20 + 3 = 23"
    assert versions(text, "swapped_steps") == {"1. Then 20 + 3 = 23\n2. The total is 5 × 4 = 20"}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="error kind"):
        inject_error("1", "typo", seed=0)
    with pytest.raises(InputError, match="per_answer"):
        subtle_errors(pl.DataFrame({"candidate_id": [], "response": []}), per_answer=0)


numbers = st.integers(0, 300).map(str)
sums = st.lists(numbers, min_size=2, max_size=4).flatmap(
    lambda ns: st.lists(st.sampled_from(["+", "-", "×", "/"]), min_size=len(ns) - 1, max_size=len(ns) - 1).map(
        lambda ops: " ".join([ns[0], *(part for op, n in zip(ops, ns[1:], strict=True) for part in (op, n))])
    )
)


def worth(expression: str) -> Fraction | None:
    """Python's own arithmetic: products before sums."""
    plain = re.sub(r"(\d+)", r"Fraction(\1)", expression.replace("×", "*").replace("÷", "/").replace("−", "-"))
    try:
        return Fraction(eval(plain, {"Fraction": Fraction}))
    except ZeroDivisionError:
        return None


@given(sums, st.sampled_from(ERROR_KINDS), st.integers(0, 5))
def test_an_edited_sum_is_worth_something_else(expression: str, kind: str, seed: int) -> None:
    edited = inject_error(expression, kind, seed=seed)
    if edited is not None:
        assert worth(edited) is not None
        assert worth(edited) != worth(expression)


signed = st.tuples(st.sampled_from(["", "-"]), sums).map("".join)


@given(signed, signed, st.sampled_from(ERROR_KINDS), st.integers(0, 5))
def test_an_edited_equation_or_comparison_is_not_true(left: str, right: str, kind: str, seed: int) -> None:
    a, b = worth(left), worth(right)
    if a is None or b is None:
        return
    statements = [f"{left} {'<' if a < b else '>' if a > b else '='} {right}"]
    if a.denominator == 1:
        statements.append(f"{left} = {a}")
    for statement in statements:
        edited = inject_error(statement, kind, seed=seed)
        if edited is not None:
            one, sign, other = re.split(r" ([<>=]) ", edited)
            x, y = worth(one), worth(other)
            assert x is not None
            assert y is not None
            assert not {"<": x < y, ">": x > y, "=": x == y}[sign]


@given(
    st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Z", "Cs", "Cc"]), max_size=40),
    st.sampled_from(ERROR_KINDS),
)
def test_any_text_gives_another_text_or_none(text: str, kind: str) -> None:
    edited = inject_error(text, kind, seed=1)
    assert edited is None or normalise(edited) != normalise(text)


def test_each_answer_gets_different_kinds_whatever_the_order() -> None:
    answers = pl.DataFrame(
        {"candidate_id": ["a", "b", "c"], "response": [SOLUTION, "Nothing to see.", "7 - 2 = 5"]}
    )
    made = subtle_errors(answers, per_answer=3, seed=4)
    assert made.untouched["parent_id"].to_list() == ["b"]
    kinds = made.edited.group_by("parent_id").agg(pl.col("kind").n_unique(), pl.len()).sort("parent_id")
    assert kinds.rows() == [("a", 3, 3), ("c", 3, 3)]
    turned = subtle_errors(answers.reverse(), per_answer=3, seed=4)
    assert turned.edited.sort(pl.all()).equals(made.edited.sort(pl.all()))
    other = subtle_errors(answers, per_answer=3, seed=5)
    assert not other.edited.equals(made.edited)


@pytest.mark.parametrize("kind", ["changed_values", "substitutions"])
def test_a_text_of_many_numbers_is_looked_through_once(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """And not once for each of its numbers: a long table took minutes."""
    looked: list[str] = []

    class Counted(NamedTuple):
        pattern: Any

        def finditer(self, text: str) -> Any:
            looked.append(text)
            return self.pattern.finditer(text)

    for name in ("_COMPARISON", "_TERMS"):
        monkeypatch.setattr(error_sites, name, Counted(getattr(error_sites, name)))
    text = " ".join(f"item {7 * i} costs {i}.25," for i in range(1, 40))
    assert len(list(getattr(error_sites, kind)(text, random.Random(0)))) > 70
    assert looked == [text, text]
