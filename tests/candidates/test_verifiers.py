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
    ],
)
def test_exact_match(answer: str, right: str, same: bool) -> None:
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
