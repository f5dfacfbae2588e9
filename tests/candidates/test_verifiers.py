"""Final answers are found where solutions put them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.candidates.verifiers import final_answer, verify
from curation.errors import InputError, ModelError


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So we get \\boxed{42}.", "42"),
        ("\\boxed{1} and then \\boxed{\\frac{3}{4}}", "\\frac{3}{4}"),
        ("12 + 30 = 42\n#### 42", "42"),
        ("#### 1,200 dollars", "1,200"),
        ("First 3, then 4. The answer is 7.", "7"),
        ("Long talk about it, of 3 and 4 and other things that nobody needs.\nFinal answer: **Paris**", "Paris"),
        ("Paris.", "Paris"),
        ("There are many of them in the world of which 7 are large and 12.5 are said to be small.", "12.5"),
        ("Nothing that could be counted is said in these words, although they are many.", ""),
        ("", ""),
        ("\\boxed{unclosed", "\\boxed{unclosed"),
    ],
)
def test_final_answers(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "right", "same"),
    [
        ("#### 1,200", "1200", True),
        ("The answer is $12.50.", "#### 12.5", True),
        ("\\boxed{\\frac{3}{4}}", "0.75", True),
        ("#### 42", "#### 24", False),
        ("PARIS!", "Paris", True),
        ("Paris", "Rome", False),
        ("The answer is 50%.", "#### 50", True),
        ("The answer is 7 apples", "7", True),
        ("x" * 80, "y" * 80, False),
        # How chat models write it.
        ("The answer is: 42", "42", True),
        ("The answer is **42**.", "42", True),
        ("**Answer**: 42", "42", True),
        ("The answer is 42, because six times seven is that.", "42", True),
        ("(the answer is 42)", "42", True),
        ("The answer is \\(42\\).", "42", True),
        ("The answer is $42$ dollars", "42", True),
        ("The answer is x = 5.", "5", True),
        ("The answer is correct.\n#### 42", "42", True),
        ("#### 42个", "42", True),
        ("The answer is (B) Paris", "B", True),
        ("C", "(B)", False),
        # A heading is no answer.
        ("#### Step 1\nAdd.\n#### Step 2\nThe answer is 42.", "42", True),
        ("#### Final Answer: 42", "42", True),
        # Expressions, lists and ranges are not their first number.
        ("3 + 4 = 7", "7", True),
        ("3 + 4 = 7", "3", False),
        ("The answer is 2 + 3x", "The answer is 2 + 5x", False),
        ("\\boxed{1, 2}", "\\boxed{1,2}", True),
        ("\\boxed{1,2}", "12", False),
        ("1. Milk", "1. Eggs", False),
        # Forms of one number.
        ("\\boxed{3 1/2}", "3.5", True),
        ("\\boxed{3 1/2}", "15.5", False),
        ("The answer is 3 1/2", "The answer is 3 1/4", False),
        ("1 000 m", "1 500 m", False),
        ("1 000 m", "1000", True),
        ("\\boxed{1{,}000}", "1000", True),
        ("\\boxed{-\\frac{3}{4}}", "-0.75", True),
        ("\\boxed{-\\frac{0}{4}}", "0", True),
        ("\\boxed{\\tfrac34}", "3/4", True),
        ("\\boxed{50\\%}", "0.5", True),
        ("\\boxed{42\\text{ cm}}", "42", True),
        ("\\boxed{42^\\circ}", "42", True),
        ("3,5 kg", "3.5", True),
        ("3,5", "35", False),
        ("–5", "-5", True),
        ("1e999999999", "3", False),
        # Signs and brackets are a part of the answer.
        ("A-", "A+", False),
        ("> 5", "< 5", False),
        ("\\boxed{-\\sqrt{2}}", "\\boxed{\\sqrt{2}}", False),
        ("\\boxed{(0,1]}", "\\boxed{[0,1]}", False),
        # The right answer among other words.
        ("She has 7 apples left.", "7", None),
        ("She has 17 apples left.", "7", False),
        ("答案是42。", "42", None),
        ("The answer is 42 or 43", "42", None),
        ("The capital is Paris, I think", "Paris", None),
    ],
)
def test_exact_match(answer: str, right: str, same: bool | None) -> None:
    # True, false, and null for what cannot be told.
    assert verify("exact_match", [[]], [answer], [[right]]).to_list() == [same]


def test_without_a_right_answer_nothing_is_told() -> None:
    assert verify("exact_match", [[]], ["7"], [[]]).to_list() == [None]


def longer(prompts: list[object], responses: list[str], right: list[list[str]]) -> list[bool]:
    return [len(r) > 3 for r in responses]


def wrong(prompts: list[object], responses: list[str], right: list[list[str]]) -> list[float]:
    return [0.5]


def test_a_function_of_ones_own() -> None:
    assert verify(f"python:{__name__}:longer", [[], []], ["a", "abcd"], [[], []]).to_list() == [False, True]
    with pytest.raises(ModelError, match="true, false or None"):
        verify(f"python:{__name__}:wrong", [[]], ["a"], [[]])
    with pytest.raises(InputError, match="cannot be found"):
        verify("python:no.such:thing", [[]], ["a"], [[]])


@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_has_a_final_answer(text: str) -> None:
    assert isinstance(final_answer(text), str)
